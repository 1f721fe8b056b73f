import gc
import weakref

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping
from noisy_sgd.gradients.engines import unclipped
from tests import oracles

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 8, 8, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 6)


def small_network(dtype="float32", dropout=0.0):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2), dtype=dtype)
    hidden = keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype)(inputs)
    hidden = keras.layers.GroupNormalization(2, dtype=dtype)(hidden)
    hidden = keras.layers.Flatten(dtype=dtype)(hidden)
    if dropout:
        hidden = keras.layers.Dropout(dropout, seed=5)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(hidden))


# The small network's weights by layer: convolution, normalization, dense.
LAYERS = [[0, 1], [2, 3], [4, 5]]


def clipped_by_definition(gradients, bound, how):
    if how == "automatic":
        return [gradient * bound / (oracles.length(gradients) + 0.01) for gradient in gradients]
    if how == "normalized":
        return [gradient * bound / oracles.length(gradients) for gradient in gradients]
    bounds = [bound / np.sqrt(3)] * 3 if how == "per_layer" else how
    if how == "flat":
        return [gradient * min(1.0, bound / oracles.length(gradients)) for gradient in gradients]
    parts = [(own, [gradients[index] for index in indices]) for own, indices in zip(bounds, LAYERS, strict=True)]
    return [gradient * min(1.0, own / oracles.length(part)) for own, part in parts for gradient in part]


def loop_over_examples(model, x, y, l2_norm_clip, how="flat"):
    """The definition, in float64: one backward pass per example."""
    double = small_network("float64")
    double.set_weights(model.get_weights())
    return oracles.clipped_sum(
        double, oracles.cross_entropy, x, y, clipped=lambda gradient: clipped_by_definition(gradient, l2_norm_clip, how)
    )


class ClippedGradientSumTest(parameterized.TestCase):
    def test_equals_a_loop_over_examples(self):
        model = small_network()
        norms, _ = loop_over_examples(model, IMAGES, LABELS, np.inf)
        bound = float(np.median(norms))  # half of the examples are clipped
        norms, expected = loop_over_examples(model, IMAGES, LABELS, bound)
        actual = clipped_sum.clipped_gradient_sum(model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=bound)
        np.testing.assert_allclose(actual.norms, norms, rtol=1e-5)
        for value, reference in zip(actual.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())
        self.assertEqual(actual.l2_sensitivity, bound)

    @parameterized.product(engine=("book_keeping", "vectorized"), how=("flat", "per_layer"))
    def test_the_remainder_is_what_clipping_takes_away(self, engine, how):
        model = small_network()
        images, labels = IMAGES.copy(), LABELS
        images[4] = np.inf  # in neither sum
        kept = np.array([True, True, True, False, False, True])
        _, whole = loop_over_examples(model, IMAGES[kept], LABELS[kept], np.inf)
        _, expected = loop_over_examples(model, IMAGES[kept], LABELS[kept], 0.5, how)
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, images, labels, l2_norm_clip=0.5, mask=[1, 1, 1, 0, 1, 1], clipping=how,
            engine=engine, with_remainder=True,
        )  # fmt: skip
        for value, rest, reference, total in zip(actual.values, actual.remainder, expected, whole, strict=True):
            np.testing.assert_allclose(value, reference, atol=2e-6)
            np.testing.assert_allclose(rest, total - reference, atol=5e-6)

    def test_one_example_moves_the_sum_by_at_most_the_bound(self):
        model = small_network()
        outlier = np.concatenate([IMAGES, 1e4 * IMAGES[:1]])
        labels = np.concatenate([LABELS, LABELS[:1]])
        with_it = clipped_sum.clipped_gradient_sum(model, oracles.cross_entropy, outlier, labels, l2_norm_clip=0.1)
        without = clipped_sum.clipped_gradient_sum(model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=0.1)
        moved = np.sqrt(sum(np.sum(np.square(a - b)) for a, b in zip(with_it.values, without.values, strict=True)))
        self.assertLessEqual(moved, 0.1 * (1 + 1e-5))
        self.assertGreater(moved, 0.099)

    def test_without_a_bound_it_is_the_plain_gradient(self):
        model = small_network()
        expected = unclipped.gradient_sum(model, oracles.cross_entropy, IMAGES, LABELS).values
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=float("inf")
        )
        for value, reference in zip(actual.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=2e-6)

    def test_padding_and_what_is_not_finite_contribute_nothing(self):
        model = small_network()
        expected = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, IMAGES[:4], LABELS[:4], l2_norm_clip=1.0
        )
        spoiled = IMAGES.copy()
        spoiled[4], spoiled[5] = np.nan, np.inf
        mask = np.array([1, 1, 1, 1, 1, 0])  # example 4 is a real one whose gradient is not finite
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, spoiled, LABELS, l2_norm_clip=1.0, mask=mask
        )
        for value, reference in zip(actual.values, expected.values, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-6, atol=1e-7)
        self.assertFalse(np.isfinite(actual.norms[4]))
        self.assertEqual(actual.norms[5], 0.0)

    def test_a_batch_of_padding_sums_to_zero(self):
        actual = clipped_sum.clipped_gradient_sum(
            small_network(), oracles.cross_entropy, IMAGES * np.nan, LABELS, l2_norm_clip=1.0, mask=np.zeros(6)
        )
        for value in actual.values:
            np.testing.assert_array_equal(value, np.zeros(value.shape))

    def test_views_are_averaged_before_they_are_clipped_once(self):
        model = small_network()
        views = np.stack([IMAGES, IMAGES[:, ::-1]], axis=1)
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, views, LABELS, l2_norm_clip=1e9, views=2
        )
        halves = [unclipped.gradient_sum(model, oracles.cross_entropy, views[:, k], LABELS).values for k in range(2)]
        for value, first, second in zip(actual.values, *halves, strict=True):
            np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-4, atol=2e-6)
        self.assertEqual(actual.norms.shape, (6,))

    def test_dropout_masks_differ_between_examples(self):
        model = small_network(dropout=0.5)
        same = np.repeat(IMAGES[:1], 6, axis=0)
        norms = clipped_sum.clipped_gradient_sum(model, oracles.cross_entropy, same, LABELS * 0, l2_norm_clip=1.0).norms
        self.assertLen(np.unique(np.asarray(norms)), 6)

    def test_two_inputs_and_a_subclassed_model(self):
        class Bilinear(keras.Model):
            def __init__(self):
                super().__init__()
                self.left, self.right = keras.layers.Dense(4), keras.layers.Dense(4)

            def call(self, inputs):
                return tf.reduce_sum(self.left(inputs["a"]) * self.right(inputs["b"]), axis=-1)

        model = Bilinear()
        inputs = {"a": IMAGES[:, 0, :, 0], "b": IMAGES[:, 1, :, 1]}
        model(inputs)
        actual = clipped_sum.clipped_gradient_sum(
            model, lambda y, p: tf.square(p - y), inputs, IMAGES[:, 0, 0, 0], l2_norm_clip=float("inf")
        )
        expected = unclipped.gradient_sum(model, lambda y, p: tf.square(p - y), inputs, IMAGES[:, 0, 0, 0]).values
        for value, reference in zip(actual.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)

    @parameterized.product(
        how=("automatic", "normalized", "per_layer", [1.2, 0.9, 2.0]), engine=("vectorized", "book_keeping")
    )
    def test_every_clip_function_equals_a_loop_over_examples(self, how, engine):
        model = small_network()
        bound = float(np.linalg.norm(how)) if isinstance(how, list) else 1.5
        norms, expected = loop_over_examples(model, IMAGES, LABELS, bound, how)
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=bound, clipping=how, engine=engine
        )
        np.testing.assert_allclose(actual.norms, norms, rtol=1e-5)
        for value, reference in zip(actual.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())
        self.assertEqual(actual.l2_sensitivity, bound)

    @parameterized.product(how=clipping.CLIPPINGS, engine=("vectorized", "book_keeping"))
    def test_one_example_moves_the_sum_by_at_most_the_sensitivity(self, how, engine):
        model = small_network()
        total = self.compiled(model, how, engine)
        everyone, norms = total(IMAGES, np.ones(6, bool))
        self.assertGreater(np.min(norms), 0.5)
        for left_out in (0, 3):
            rest, _ = total(IMAGES, np.arange(6) != left_out)
            moved = oracles.length([a - b for a, b in zip(everyone, rest, strict=True)])
            self.assertLessEqual(moved, 0.1 * (1 + 1e-5))
            self.assertGreater(moved, 0.098)
        # Neither padding nor what is not finite comes in.
        spoiled = IMAGES.copy()
        spoiled[4], spoiled[5] = np.nan, np.inf
        expected, _ = total(IMAGES, np.arange(6) < 4)
        actual, norms = total(spoiled, np.arange(6) < 5)
        self.assertFalse(np.isfinite(norms[4]))
        self.assertEqual(norms[5], 0.0)
        for value, reference in zip(actual, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-6)

    def compiled(self, model, how, engine):
        @tf.function(autograph=False)
        def total(images, mask):
            result = clipped_sum.clipped_gradient_sum(
                model, oracles.cross_entropy, images, LABELS, l2_norm_clip=0.1, clipping=how, engine=engine, mask=mask
            )
            self.assertEqual(result.l2_sensitivity, 0.1)
            return result.values, result.norms

        return total

    def test_a_zero_gradient_stays_zero(self):
        for how in clipping.CLIPPINGS:
            actual = clipped_sum.clipped_gradient_sum(
                small_network(), lambda y, p: 0.0 * p[:, 0], IMAGES, LABELS, l2_norm_clip=1.0, clipping=how
            )
            for value in actual.values:
                np.testing.assert_array_equal(value, np.zeros(value.shape))

    def test_a_layer_that_is_not_used_has_its_share_of_the_bound(self):
        def build():
            keras.utils.set_random_seed(3)
            inputs = keras.Input((4,))
            used, unused = keras.layers.Dense(3), keras.layers.Dense(2)
            return keras.Model(inputs, [used(inputs), unused(inputs)])

        x = np.ones((1, 4), np.float32)
        for engine in ("vectorized", "book_keeping"):
            actual = clipped_sum.clipped_gradient_sum(
                build(), lambda y, p: tf.reduce_sum(p[0], axis=-1), x, x, l2_norm_clip=1.0, clipping="per_layer",
                engine=engine,
            )  # fmt: skip
            self.assertAlmostEqual(oracles.length(actual.values), 1 / np.sqrt(2), places=5)
            np.testing.assert_array_equal(actual.values[2], np.zeros((4, 2)))

    @parameterized.parameters(
        ({"clipping": "normalized", "l2_norm_clip": float("inf")}, "finite with clipping='normalized'"),
        ({"clipping": [0.6, 0.8]}, "one bound for each of the model's 3 layers"),
        ({"engine": "fast"}, "`engine` must be one of .*Received: engine='fast'"),
        ({"clipping": "soft"}, "`clipping` must be one of .*Received: clipping='soft'"),
        ({"views": 0}, "`views` must be a positive integer.*Received: views=0"),
        ({"l2_norm_clip": 0.0}, "`l2_norm_clip` must be positive.*Received: l2_norm_clip=0.0"),
        ({"l2_norm_clip": tf.constant(-1.0)}, "`l2_norm_clip` must be positive.*Received: l2_norm_clip=-1.0"),
        ({"engine": ["auto"]}, r"`engine` must be one of .*Received: engine=\['auto'\]"),
        ({"views": True}, "`views` must be a positive integer.*Received: views=True"),
        ({"views": 2.0}, "`views` must be a positive integer.*Received: views=2.0"),
        ({"views": 3}, r"`x` must be \[B, views, ...\] .*Received: views=3, x of shapes \(6, 8, 8, 2\)"),
        ({"views": 2, "x": LABELS}, r"`x` must be \[B, views, ...\] .*Received: views=2, x of shapes \(6,\)"),
        ({"mask": [1, 1, 0]}, r"`mask` must be \[B\].* 6. Received: mask of shape \(3,\)"),
        ({"mask": np.ones([6, 1])}, r"`mask` must be \[B\].* 6. Received: mask of shape \(6, 1\)"),
        ({"mask": [1, 1, 0.5, 1, 0, 0]}, "`mask` must hold 0, for padding, and 1 only. Received: .* an entry 0.5"),
        ({"mask": tf.constant([np.nan] * 6)}, "`mask` must hold 0, .*Received: .* an entry nan"),
        ({"y": LABELS[:3]}, r"`y` must hold as many examples as `x`, 6. Received: y of shapes \(3,\)"),
        ({"y": None}, "`y` must be a tensor or a nest of tensors .*zeros will do. Received: y=None"),
        ({"y": [0, 1, 2, 0, 1, 2]}, "`y` must have a leading axis of examples .*np.asarray"),
        (
            {"x": [IMAGES, IMAGES[:3]]},
            r"`x` must hold the same number of examples in every .*\[\(6, 8, 8, 2\), \(3, 8, 8, 2\)\]",
        ),
        ({"loss_fn": "mse"}, "`loss_fn` must be a function .*one loss per example.*Received: loss_fn='mse'"),
        ({"model": len}, "`model` must be a keras.Model. Received: model of type builtin_function_or_method"),
        ({"model": keras.layers.Dense(3)}, r"`model` must be a keras.Model \(.*Received: model of type Dense"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        usual = {
            "model": small_network(),
            "loss_fn": oracles.cross_entropy,
            "x": IMAGES,
            "y": LABELS,
            "l2_norm_clip": 1.0,
        }
        with self.assertRaisesRegex(ValueError, message):
            clipped_sum.clipped_gradient_sum(**{**usual, **arguments})

    @parameterized.parameters("vectorized", "book_keeping")
    def test_without_trainable_weights_there_is_nothing_to_sum(self, engine):
        model = small_network()
        model.trainable = False
        actual = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=1.0, engine=engine
        )
        self.assertEqual(actual.values, [])
        np.testing.assert_array_equal(actual.norms, np.zeros(6))

    def test_float16_is_refused(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_float16")])
        with self.assertRaisesRegex(ValueError, "`model` must not compute in float16.*use mixed_bfloat16"):
            clipped_sum.clipped_gradient_sum(
                model, oracles.cross_entropy, IMAGES[:, 0, :2, 0], LABELS, l2_norm_clip=1.0
            )

    def test_what_numpy_calls_a_number_is_accepted(self):
        def values(bound, views, bounds, mask):
            result = clipped_sum.clipped_gradient_sum(
                small_network(),
                oracles.cross_entropy,
                IMAGES,
                LABELS,
                l2_norm_clip=bound,
                views=views,
                clipping=bounds,
                mask=mask,
            )
            return result.values

        bounds = np.array([1.2, 0.9, 2.0])
        expected = values(2.5, 1, [1.2, 0.9, 2.0], None)
        for given in (bounds, list(bounds), tuple(bounds)):
            actual = values(np.float64(2.5), np.int64(1), given, np.ones(6, bool))
            for value, reference in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(value, reference)

    def test_a_bound_or_mask_known_only_to_a_graph_is_checked_there(self):
        model = small_network()

        @tf.function(autograph=False)
        def total(bound, mask):
            result = clipped_sum.clipped_gradient_sum(
                model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=bound, mask=mask
            )
            return result.values, result.l2_sensitivity

        values, bound = total(tf.constant(0.1), tf.constant([1, 1, 1, 1, 0, 0]))
        self.assertAlmostEqual(float(bound), 0.1)
        self.assertLess(oracles.length(values), 0.4)
        for wrong in (0.0, -1.0, np.nan):
            with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "`l2_norm_clip` must be positive"):
                total(tf.constant(wrong), tf.constant([1, 1, 1, 1, 0, 0]))


class Adapted(keras.layers.Dense):
    """A subclass, whose call might differ, has no rule for LoRA."""


def without_rules():
    inputs = keras.Input((2,))
    first, second = Adapted(3, name="first"), Adapted(2, name="second")
    model = keras.Model(inputs, second(first(inputs)))
    for layer in (first, second):
        layer.enable_lora(1)
    return model


class InputsAndTypesTest(parameterized.TestCase):
    @parameterized.product(
        engine=("book_keeping", "vectorized"),
        clip=("flat", "per_layer"),
        double=("convolution", "normalization", "dense"),
    )
    def test_weights_of_both_precisions_in_one_model(self, engine, clip, double):
        keras.utils.set_random_seed(1)
        kinds = {name: "float64" if name == double else "float32" for name in ("convolution", "normalization", "dense")}
        inputs = keras.Input((8, 8, 2))
        hidden = keras.layers.Conv2D(4, 3, dtype=kinds["convolution"])(inputs)
        hidden = keras.layers.GroupNormalization(2, dtype=kinds["normalization"])(hidden)
        outputs = keras.layers.Dense(3, dtype=kinds["dense"])(keras.layers.Flatten(dtype=kinds["dense"])(hidden))
        model = keras.Model(inputs, outputs)
        # Far above all norms where each layer has a bound of its own.
        bound = 1e3
        norms, expected = oracles.clipped_sum(model, oracles.cross_entropy, IMAGES, LABELS, bound)
        if clip == "flat":
            bound = float(np.median(norms))
            norms, expected = oracles.clipped_sum(model, oracles.cross_entropy, IMAGES, LABELS, bound)
        result = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, IMAGES, LABELS, l2_norm_clip=bound, clipping=clip, engine=engine
        )
        np.testing.assert_allclose(result.norms, norms, rtol=1e-5)
        for value, reference, weight in zip(result.values, expected, model.trainable_weights, strict=True):
            self.assertEqual(value.dtype.name, weight.dtype)
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)

    @parameterized.product(engine=("book_keeping", "vectorized"), kind=("tensorflow", "scipy"), declared=(True, False))
    def test_sparse_inputs_are_made_dense(self, engine, kind, declared):
        keras.utils.set_random_seed(1)
        x = np.where(RNG.random((6, 5)) < 0.4, RNG.normal(size=(6, 5)), 0.0).astype(np.float32)
        inputs = keras.Input((5,), sparse=declared)
        model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4, activation="tanh")(inputs)))
        sparse = tf.sparse.from_dense(x) if kind == "tensorflow" else scipy.sparse.csr_matrix(x)
        norms, expected = oracles.clipped_sum(model, oracles.cross_entropy, x, LABELS, 1.0)
        result = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, sparse, LABELS, l2_norm_clip=1.0, engine=engine
        )
        np.testing.assert_allclose(result.norms, norms, rtol=1e-5)
        for value, reference in zip(result.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-6)

    def test_ragged_inputs_are_refused(self):
        ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        for name, x, y in (("x", ragged, LABELS[:2]), ("y", np.ones((2, 2), "f"), ragged)):
            with self.assertRaisesRegex(ValueError, f"^`{name}` must .*`to_tensor.*Received: {name} of shape .2, None"):
                clipped_sum.clipped_gradient_sum(model, oracles.cross_entropy, x, y, l2_norm_clip=1.0)

    @parameterized.parameters("book_keeping", "vectorized")
    def test_sizes_unknown_to_the_trace(self, engine):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((None,), dtype="int32")
        hidden = keras.layers.Dense(4, activation="tanh")(keras.layers.Embedding(7, 4)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        x, y = RNG.integers(0, 7, (6, 5)).astype(np.int32), RNG.integers(0, 3, (6, 5))

        def loss(y, y_pred):
            return tf.reduce_sum(oracles.cross_entropy(y, y_pred), axis=-1)

        def summed(x, y):
            result = clipped_sum.clipped_gradient_sum(model, loss, x, y, l2_norm_clip=1e3, engine=engine)
            return result.norms, result.values

        signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int64)]
        norms, values = tf.function(summed, autograph=False, input_signature=signature)(x, y)
        gradients = []
        for index in range(6):
            with tf.GradientTape() as tape:
                total = loss(y[index : index + 1], model(x[index : index + 1]))
            own = tape.gradient(total, [weight.value for weight in model.trainable_weights])
            gradients.append([np.asarray(tf.convert_to_tensor(gradient), np.float64) for gradient in own])
        np.testing.assert_allclose(norms, [oracles.length(own) for own in gradients], rtol=1e-5)
        for value, parts in zip(values, zip(*gradients, strict=True), strict=True):
            np.testing.assert_allclose(value, sum(parts), rtol=1e-4, atol=1e-5)


class FallbackTest(absltest.TestCase):
    def fall_back(self, model):
        clipped_sum.clipped_gradient_sum(
            model, lambda y, p: tf.reduce_sum(tf.square(y - p), axis=-1), IMAGES[:, 0, :2, 0], IMAGES[:, 0, :2, 1],
            l2_norm_clip=1.0,
        )  # fmt: skip

    def test_a_warning_names_every_layer_without_a_rule_once_a_model(self):
        for _ in range(2):  # layers of the same names
            model = without_rules()
            with self.assertLogs("absl", "WARNING") as logs:
                for _ in range(2):
                    self.fall_back(model)
            self.assertLen(logs.output, 1)
            self.assertRegex(logs.output[0], r"Falling back .*'first' \(Adapted\), 'second' \(Adapted\)")

    def test_a_model_that_was_warned_of_is_not_kept(self):
        model = without_rules()
        self.fall_back(model)
        gone = weakref.ref(model)
        del model
        gc.collect()
        self.assertIsNone(gone())


if __name__ == "__main__":
    absltest.main()
