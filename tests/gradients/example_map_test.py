import gc
import weakref

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping, example_map, vectorized

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
    hidden = keras.layers.PReLU(dtype=dtype, alpha_initializer="ones")(hidden)  # a layer without a rule
    hidden = keras.layers.Flatten(dtype=dtype)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(hidden))


def by_definition(kind, weights, bound):
    """Norms and clipped sums from one backward pass an example, in float64."""
    model = model_of(kind, "float64")
    model.set_weights(weights)
    norms, total = [], None
    for x, y in zip(SEQUENCES, TARGETS, strict=True):
        with tf.GradientTape() as tape:
            loss = squared(y[None], model(x[None].astype(np.float64), training=True))
        gradients = [np.asarray(g) for g in tape.gradient(loss, [w.value for w in model.trainable_weights])]
        norms.append(np.sqrt(sum(np.sum(np.square(g)) for g in gradients)))
        clipped = [g * min(1.0, bound / norms[-1]) for g in gradients]
        total = clipped if total is None else [a + b for a, b in zip(total, clipped, strict=True)]
    return np.asarray(norms), total


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
        with tf.Graph().as_default(), tf.device("/GPU:0"):
            product = tf.raw_ops.BatchMatMulV2(x=tf.ones([6, 1, 7, 8]), y=tf.ones([8, 5]))
        self.assertIsNone(example_map._broadcast_product(product.graph))


class EmptyBatchTest(parameterized.TestCase):
    @parameterized.product(engine=("vectorized", "book_keeping"), mode=("eager", "graph", "unknown_size"))
    def test_sums_to_zero(self, engine, mode):
        # Keras' own convolutions fail on an empty batch.
        hidden = keras.layers.Conv1D(3, 2) if engine == "vectorized" else keras.layers.Dense(3)
        model = keras.Sequential([keras.Input((6, 4)), hidden, keras.layers.Flatten(), keras.layers.Dense(3)])

        def total(x, y):
            result = clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=2.0, engine=engine)
            return result.norms, result.values, result.unclipped

        if mode != "eager":
            size = None if mode == "unknown_size" else 0
            signature = [tf.TensorSpec([size, 6, 4]), tf.TensorSpec([size, 3])]
            total = tf.function(total, input_signature=signature, autograph=False)
        norms, values, unclipped = total(SEQUENCES[:0], TARGETS[:0])
        self.assertEqual(norms.shape, (0,))
        self.assertEqual(unclipped, 0.0)
        for value, weight in zip(values, model.trainable_weights, strict=True):
            np.testing.assert_array_equal(value, np.zeros(weight.shape))

    def test_the_engine_returns_no_losses_and_no_predictions(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        x, y = SEQUENCES[:0, 0], TARGETS[:0]
        result = vectorized.clipped_sum(model, squared, x, y, clip=clipping.flat(1.0))
        self.assertEqual((result.losses.shape, result.predictions.shape), ((0,), (0, 3)))


if __name__ == "__main__":
    absltest.main()
