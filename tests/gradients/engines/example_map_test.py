import gc
import weakref

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping
from noisy_sgd.gradients.engines import example_map, vectorized
from noisy_sgd.optimizers import sgd
from noisy_sgd.training import private_model
from tests import oracles

RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(5, 6, 4)).astype(np.float32)
TARGETS = RNG.normal(size=(5, 3)).astype(np.float32)
WARNING = "takes the examples of model .* one after the other"


class Weighted(keras.layers.Layer):
    """A layer of one's own that multiplies by a matrix, as einsum and matmul do."""

    def __init__(self, product, **kwargs):
        super().__init__(**kwargs)
        self.product = product

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 5), name="matrix")

    def call(self, inputs):
        return self.product(inputs, self.matrix.value)


def attention(dtype, dropout=0.0):
    return lambda inputs: keras.layers.MultiHeadAttention(2, 3, dropout=dropout, dtype=dtype)(inputs, inputs)


KINDS = {
    "einsum_dense": lambda dtype: keras.layers.EinsumDense("abc,cd->abd", output_shape=(6, 5), dtype=dtype),
    "einsum_dense_of_rank_3": lambda dtype: keras.layers.EinsumDense("abc,cde->abde", (6, 2, 3), dtype=dtype),
    "attention": attention,
    "matmul": lambda dtype: Weighted(keras.ops.matmul, dtype=dtype),
    "matmul_in_tensorflow": lambda dtype: Weighted(tf.matmul, dtype=dtype),
    "einsum": lambda dtype: Weighted(lambda x, w: keras.ops.einsum("bij,jk->bik", x, w), dtype=dtype),
    "einsum_in_tensorflow": lambda dtype: Weighted(lambda x, w: tf.einsum("bij,jk->bik", x, w), dtype=dtype),
}


def squared(y, y_pred):
    return tf.reduce_sum(tf.square(y_pred - tf.cast(y, y_pred.dtype)), axis=-1)


def model_of(kind, dtype="float32"):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 4), dtype=dtype)
    hidden = KINDS[kind](dtype)(inputs)
    hidden = keras.layers.PReLU(dtype=dtype, alpha_initializer="ones")(hidden)
    hidden = keras.layers.Flatten(dtype=dtype)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(hidden))


def by_definition(kind, weights, bound):
    """Norms and clipped sums from one backward pass per example, in float64."""
    model = model_of(kind, "float64")
    model.set_weights(weights)
    return oracles.clipped_sum(model, squared, SEQUENCES.astype(np.float64), TARGETS, bound)


class MatricesByWeightsTest(parameterized.TestCase):
    """What `tf.vectorized_map` alone gets wrong on a CPU with oneDNN, where it does not end the process."""

    @parameterized.product(kind=list(KINDS), mode=("eager", "graph", "unknown_size"))
    def test_equals_a_loop_over_examples(self, kind, mode):
        model = model_of(kind)
        expected_norms, expected = by_definition(kind, model.get_weights(), 2.0)

        def total(x, y):
            result = clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=2.0)
            return result.norms, result.values

        if mode != "eager":
            size = None if mode == "unknown_size" else 5
            signature = [tf.TensorSpec([size, 6, 4]), tf.TensorSpec([size, 3])]
            total = tf.function(total, input_signature=signature, autograph=False)
        norms, values = total(SEQUENCES, TARGETS)
        np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)
        largest = max(np.abs(reference).max() for reference in expected)
        for value, reference in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5 * largest)

    def test_under_xla_too(self):
        model = model_of("attention")
        expected_norms, _ = by_definition("attention", model.get_weights(), 2.0)

        @tf.function(jit_compile=True, autograph=False)
        def norms(x, y):
            return vectorized.clipped_sum(model, squared, x, y, clip=clipping.flat(2.0)).norms

        with self.assertNoLogs("absl", "WARNING"):
            np.testing.assert_allclose(norms(SEQUENCES, TARGETS), expected_norms, rtol=1e-5)

    def test_a_warning_says_so_once_a_model(self):
        for _ in range(2):
            model = model_of("einsum_dense")
            with self.assertLogs("absl", "WARNING") as logs:
                for _ in range(2):
                    vectorized.clipped_sum(model, squared, SEQUENCES, TARGETS, clip=clipping.flat(1.0))
            self.assertLen(logs.output, 1)
            self.assertRegex(logs.output[0], WARNING + ".*MatMul.*oneDNN.*jit_compile=True")

    def test_a_model_that_was_warned_of_is_not_kept(self):
        model = model_of("einsum_dense")
        vectorized.clipped_sum(model, squared, SEQUENCES, TARGETS, clip=clipping.flat(1.0))
        gone = weakref.ref(model)
        del model
        gc.collect()
        self.assertIsNone(gone())

    def test_masks_of_attention_differ_between_examples_and_calls(self):
        inputs = keras.Input((6, 4))
        hidden = keras.layers.GlobalAveragePooling1D()(attention("float32", dropout=0.5)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        same = np.repeat(SEQUENCES[:1], 6, axis=0)

        @tf.function(autograph=False)
        def norms():
            return vectorized.clipped_sum(model, squared, same, np.ones((6, 3), "f"), clip=clipping.flat(1.0)).norms

        self.assertLen(np.unique(np.concatenate([norms(), norms()])), 12)


class Scan(keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, inputs):
        gain = keras.ops.convert_to_tensor(self.gain)
        steps = keras.ops.moveaxis(inputs, 1, 0)
        return keras.ops.scan(lambda carry, x: ((carry + x) * gain, None), keras.ops.zeros_like(steps[0]), steps)[0]

    def compute_output_shape(self, shape):
        return shape[0], shape[2]


class InPython(keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, inputs):
        scaled = tf.py_function(lambda x, gain: tf.tanh(x * gain), [inputs, self.gain.value], tf.float32)
        return tf.ensure_shape(scaled, inputs.shape)


def text(inputs):
    split = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
    return keras.layers.Embedding(5, 4)(split(inputs))


def recurrent(inputs):
    return keras.layers.SimpleRNN(3)(keras.layers.Embedding(5, 4, mask_zero=True)(inputs))


VOLUMES = RNG.normal(size=(5, 3, 3, 3, 4)).astype(np.float32)
IDS = np.asarray([[1, 2, 3, 4], [4, 3, 0, 0], [2, 0, 0, 0], [3, 3, 1, 0], [2, 4, 4, 2]], np.int32)
# What `tf.vectorized_map` alone fails on: the layers, inputs, and what the warning names.
NOT_VECTORIZED = {
    "recurrent": (recurrent, IDS, "while"),
    "scan": (lambda inputs: Scan()(keras.layers.Dense(4)(inputs)), SEQUENCES, "scan.*while"),
    "bias_on_another_axis": (
        lambda inputs: keras.layers.EinsumDense("abc,cd->abd", (6, 5), bias_axes="b")(inputs),
        SEQUENCES,
        "einsum_dense.*BiasAddGrad",
    ),
    "grouped_convolution": (lambda inputs: keras.layers.Conv3D(4, 2, groups=2)(inputs), VOLUMES, "Conv3D.*groups"),
    "text": (text, np.asarray([["a b"], ["b"], ["c a"], ["a a b"], ["b a"]]), "StringSplit.*size"),
    "in_python": (lambda inputs: InPython()(keras.layers.Dense(4)(inputs)), SEQUENCES, "EagerPyFunc"),
}


class NotVectorizedTest(parameterized.TestCase):
    def made(self, kind):
        """A model, its inputs, what the warning names, a bound, and norms and clipped sum by a loop over examples."""
        keras.utils.set_random_seed(2)
        layers, x, named = NOT_VECTORIZED[kind]
        x = tf.constant(x)
        # Of unknown length where it may be.
        inputs = keras.Input(x.shape[1:] if kind != "recurrent" else (None,), dtype=x.dtype.name)
        hidden = layers(inputs)
        hidden = keras.layers.Flatten()(hidden) if len(hidden.shape) > 2 else hidden
        model = private_model.PrivateModel(inputs, keras.layers.Dense(3)(hidden))
        gradients = []
        for i in range(5):
            with tf.GradientTape() as tape:
                loss = squared(TARGETS[i : i + 1], model(x[i : i + 1], training=True))
            own = tape.gradient(loss, [w.value for w in model.trainable_weights])
            gradients.append([np.asarray(tf.convert_to_tensor(g), np.float64) for g in own])
        norms = np.asarray([np.sqrt(sum(np.sum(np.square(g)) for g in own)) for own in gradients])
        bound = float(np.median(norms))
        clipped = [[g * min(1.0, bound / norm) for g in own] for own, norm in zip(gradients, norms, strict=True)]
        return model, x, named, bound, norms, [sum(parts) for parts in zip(*clipped, strict=True)]

    def assert_close(self, values, expected):
        largest = max(np.abs(reference).max() for reference in expected)
        for value, reference in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5 * largest)

    @parameterized.parameters(*NOT_VECTORIZED)
    def test_equals_a_loop_over_examples_and_says_so_once(self, kind):
        model, x, named, bound, norms, expected = self.made(kind)
        with self.assertLogs("absl", "WARNING") as logs:
            for _ in range(2):
                result = clipped_sum.clipped_gradient_sum(
                    model, squared, x, TARGETS, l2_norm_clip=bound, engine="vectorized"
                )
        np.testing.assert_allclose(result.norms, norms, rtol=1e-4)
        self.assert_close(result.values, expected)
        self.assertLen(logs.output, 1)
        self.assertRegex(logs.output[0], f"{WARNING}.*{named}")

    @parameterized.product(kind=("recurrent", "grouped_convolution"), jit_compile=(False, True))
    def test_a_private_model_trains_on_it(self, kind, jit_compile):
        model, x, _, bound, _, expected = self.made(kind)
        before = model.get_weights()
        model.compile(sgd.DPSGD(1.0, bound, 0.0, 5), squared, jit_compile=jit_compile, engine="vectorized")
        model.fit(x, TARGETS, shuffle=False, verbose=0)
        self.assert_close([5 * (a - b) for a, b in zip(before, model.get_weights(), strict=True)], expected)

    def test_masks_of_dropout_differ_between_examples_and_calls(self):
        inputs = keras.Input((6, 4))
        hidden = keras.layers.SimpleRNN(32, dropout=0.5, recurrent_dropout=0.5)(keras.layers.Dense(32)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        same = np.repeat(SEQUENCES[:1], 6, axis=0)

        @tf.function(autograph=False)
        def norms():
            return vectorized.clipped_sum(model, squared, same, np.ones((6, 3), "f"), clip=clipping.flat(1.0)).norms

        with self.assertLogs("absl", "WARNING"):
            self.assertLen(np.unique(np.concatenate([norms(), norms()])), 12)

    def test_what_the_loss_raises_comes_as_it_is(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

        def wrong(y, y_pred):
            raise ValueError("not today")

        with self.assertRaisesRegex(ValueError, "^not today$"), self.assertNoLogs("absl", "WARNING"):
            vectorized.clipped_sum(model, wrong, SEQUENCES[:, 0], TARGETS, clip=clipping.flat(1.0))

    @parameterized.parameters("lookup_of_unknown_length", "known_positions")
    def test_sizes_that_do_not_depend_on_values_stay_vectorized(self, kind):
        inputs = keras.Input((None,), dtype="string" if kind.startswith("lookup") else "int32")
        ids = keras.layers.StringLookup(vocabulary=["a", "b"])(inputs) if kind.startswith("lookup") else inputs
        hidden = keras.layers.Embedding(5, 4)(ids)
        if kind == "known_positions":
            # As tf.boolean_mask by a mask that is the same for all examples.
            hidden = keras.layers.Lambda(lambda t: tf.gather(t, tf.where([True, False, True])[:, 0], axis=1))(hidden)
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(hidden)))
        x = tf.constant([["a", "b", "a"]] * 5) if kind.startswith("lookup") else tf.constant(IDS)
        total = tf.function(
            lambda x, y: vectorized.clipped_sum(model, squared, x, y, clip=clipping.flat(1.0)).values,
            autograph=False,
            input_signature=[tf.TensorSpec([None, None], x.dtype), tf.TensorSpec([None, 3])],
        )
        with self.assertNoLogs("absl", "WARNING"):
            total(x, TARGETS)


class SearchTest(parameterized.TestCase):
    def one_by_one(self, function, *elements):
        """Whether the examples go one after the other."""
        model = keras.Sequential([keras.layers.Identity()])
        try:
            with self.assertLogs("absl", "WARNING"):
                example_map.over_examples(function, elements, model)
        except AssertionError:
            return False
        return True

    @parameterized.parameters("conv", "dense_of_rank_3", "recurrent", "batched_by_batched")
    def test_what_is_right_stays_vectorized(self, kind):
        layers = {
            "conv": keras.layers.Conv1D(5, 3),
            "dense_of_rank_3": keras.layers.Dense(5),
            "recurrent": keras.layers.LSTM(5, return_sequences=True),
            "batched_by_batched": keras.layers.Dot(axes=2),
        }
        inputs = keras.Input((6, 4))
        hidden = layers[kind]([inputs, inputs] if kind == "batched_by_batched" else inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))
        with self.assertNoLogs("absl", "WARNING"):
            vectorized.clipped_sum(model, squared, SEQUENCES, TARGETS, clip=clipping.flat(1.0))

    def test_a_product_inside_a_branch_or_a_loop_is_found(self):
        matrix = tf.ones([4, 5])

        def looped(example):
            return tf.while_loop(lambda i, _: i < 2, lambda i, t: (i + 1, t @ matrix @ tf.ones([5, 4])),
                                 (0, example[0][None]))[1]  # fmt: skip

        def branched(example):
            x = example[0][None]
            return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ matrix, lambda: tf.zeros([1, 6, 5]))

        def called(example):
            return tf.function(lambda x: x @ matrix)(example[0][None])

        for function in (looped, branched, called):
            self.assertTrue(self.one_by_one(function, tf.constant(SEQUENCES)))

    def test_products_of_equal_batches_are_not_taken_for_broadcasts(self):
        self.assertFalse(self.one_by_one(lambda e: e[0][None] @ e[1][None], SEQUENCES, SEQUENCES.swapaxes(1, 2)))
        self.assertTrue(self.one_by_one(lambda e: e[0][None] @ tf.ones([1, 4, 2]), SEQUENCES))

    def test_on_an_accelerator_nothing_is_wrong(self):
        for device in ("CPU", "GPU"):
            with tf.Graph().as_default() as graph, tf.device(f"/{device}:0"):
                tf.raw_ops.BatchMatMulV2(x=tf.ones([6, 1, 7, 8]), y=tf.ones([8, 5]))
            self.assertEqual(example_map._why_wrong(graph, xla=False) is None, device == "GPU")


class EmptyBatchTest(parameterized.TestCase):
    @parameterized.product(engine=("vectorized", "book_keeping"), mode=("eager", "graph", "unknown_size"), views=(1, 2))
    def test_sums_to_zero(self, engine, mode, views):
        # Keras' own convolutions fail on an empty batch.
        hidden = keras.layers.Conv1D(3, 2)
        model = keras.Sequential([keras.Input((6, 4)), hidden, keras.layers.Flatten(), keras.layers.Dense(3)])
        sequences = SEQUENCES if views == 1 else np.stack([SEQUENCES] * views, axis=1)

        def total(x, y):
            result = clipped_sum.clipped_gradient_sum(
                model, squared, x, y, l2_norm_clip=2.0, engine=engine, views=views
            )
            return result.norms, result.values

        if mode != "eager":
            size = None if mode == "unknown_size" else 0
            signature = [tf.TensorSpec([size, *sequences.shape[1:]]), tf.TensorSpec([size, 3])]
            total = tf.function(total, input_signature=signature, autograph=False)
        norms, values = total(sequences[:0], TARGETS[:0])
        self.assertEqual(norms.shape, (0,))
        for value, weight in zip(values, model.trainable_weights, strict=True):
            np.testing.assert_array_equal(value, np.zeros(weight.shape))

    def test_the_engine_returns_no_losses_and_no_predictions(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        x, y = SEQUENCES[:0, 0], TARGETS[:0]
        result = vectorized.clipped_sum(model, squared, x, y, clip=clipping.flat(1.0))
        self.assertEqual((result.losses.shape, result.predictions.shape), ((0,), (0, 3)))


if __name__ == "__main__":
    absltest.main()
