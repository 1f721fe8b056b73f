"""Norms that come from differences, where rounding has eaten them: one example must never pass for a short one."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import layer_rules
from noisy_sgd.gradients.layer_rules.shared import rounding
from noisy_sgd.models import normalizer_free

L = keras.layers
WSConv = normalizer_free.WeightStandardizedConv2D
EXAMPLES = 4

# Input shape and layer; output gradients add up to 0 over an example's positions.
LAYERS = {
    "dense": ((4, 64), lambda d: L.Dense(256, use_bias=False, dtype=d)),
    "einsum_blocks": ((6, 5, 16), lambda d: L.EinsumDense("atbc,bcd->atbd", (None, 5, 32), dtype=d)),
    "pixels": ((6, 6, 32), lambda d: L.Conv2D(48, 3, use_bias=False, dtype=d)),
    "windows": ((7, 7, 32), lambda d: L.Conv2D(48, 3, strides=2, padding="same", use_bias=False, dtype=d)),
    "sequence": ((8, 32), lambda d: L.Conv1D(48, 3, use_bias=False, dtype=d)),
    "standardized": ((4, 4, 64), lambda d: WSConv(64, 3, use_bias=False, dtype=d)),
    "standardized_bias": ((4, 4, 64), lambda d: WSConv(64, 3, bias_initializer="ones", dtype=d)),
    "standardized_map": ((9, 9, 4), lambda d: WSConv(8, 3, use_bias=False, dtype=d)),
}


def built(make, shape, *, frozen_gain=False):
    """The layer in float32 and, with the same weights, in float64."""
    keras.utils.set_random_seed(0)
    pair = [make(dtype) for dtype in ("float32", "float64")]
    for layer in pair:
        layer.build((None, *shape))
        if frozen_gain:
            layer.gain.trainable = False
    pair[1].set_weights([weight.astype(np.float64) for weight in pair[0].get_weights()])
    return pair


def reference(layer, x, z):
    """Each example's gradients of <layer(x), z>, [EXAMPLES, size], in float64."""
    rows = []
    for i in range(EXAMPLES):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(tf.constant(x[i : i + 1], tf.float64)) * tf.cast(z[i : i + 1], tf.float64))
        slopes = tape.gradient(total, [weight.value for weight in layer.trainable_weights if weight.name != "bias"])
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(slope)) for slope in slopes]))
    return np.stack(rows)


def contributed(layer, route, x, z, device):
    """Squared norms of the kernel's group, and every example's own part of the sum at C = 1."""

    def step(x, z):
        saved = {"inputs": x, "outputs": layer(x)} if isinstance(layer, L.Conv2D | L.Conv1D) else x
        call = layer_rules.Call(saved=saved, tap_gradients=[z])
        microbatch = layer_rules.Microbatch(units=EXAMPLES, views=1, device=device, dtype=tf.float32)
        groups = layer_rules.rule_for(layer).gradients(layer, [call], microbatch)
        (routes,) = [group for group in groups if isinstance(group, list)]
        found = next((one for one in routes if one.name == route), routes[0]).build()
        factors = tf.minimum(1.0, tf.math.rsqrt(found.squared_norms))
        parts = [found.sums(factors * tf.one_hot(i, EXAMPLES), found.tensors) for i in range(EXAMPLES)]
        return found.squared_norms, [tf.concat([tf.reshape(value, [-1]) for value in part], 0) for part in parts]

    return tf.function(step, jit_compile=device == "accelerator")(tf.constant(x), tf.constant(z))


def example(generator, layer, shape, offset):
    """Inputs around an offset, and output gradients that add up to 0 over the positions of an example."""
    x = (generator.normal(size=(EXAMPLES, *shape)) + offset).astype(np.float32)
    z = generator.normal(size=layer(x).shape)
    return x, (z - z.mean(axis=tuple(range(1, 2 if z.ndim == 3 else 3)), keepdims=True)).astype(np.float32)


class SquaredLengthsTest(parameterized.TestCase):
    @parameterized.product(device=["accelerator", "cpu"], size=[1, 3, 16, 17, 100, 1023, 2**16])
    def test_equal_entries(self, device, size):
        microbatch = layer_rules.Microbatch(units=2, views=1, device=device, dtype=tf.float32)
        values = np.array([0.1, 3.7], np.float32)[:, None] * np.ones((2, size), np.float32)
        for known in (size, None):
            found = tf.function(
                lambda v: rounding.squared_lengths(v, microbatch),
                input_signature=[tf.TensorSpec([2, known], tf.float32)],
                jit_compile=device == "accelerator",
            )
            # Entry by entry, XLA is wrong by 4e-5 for the largest size; TensorFlow's sums on a CPU by 3e-6.
            rtol = 1e-6 if device == "accelerator" else 4e-6
            np.testing.assert_allclose(found(values), np.square(values.astype(np.float64)).sum(axis=1), rtol=rtol)


class LayersTest(parameterized.TestCase):
    @parameterized.product(case=list(LAYERS), offset=[10.0, 3000.0])
    def test_norms_equal_those_of_the_gradients(self, case, offset):
        shape, make = LAYERS[case]
        layer, exact = built(make, shape)
        x, z = example(np.random.default_rng(1), layer, shape, offset)
        expected = np.sqrt(np.sum(reference(exact, x, z) ** 2, axis=1))
        # Gradients in float32, which are what is summed, are themselves no better where so much of them cancels.
        rtol = 3e-5 if offset > 100 else 1e-5
        for route in ("gram", "formed_twice", "per_example"):
            with self.subTest(route=route):
                squares, parts = contributed(layer, route, x, z, "cpu")
                np.testing.assert_allclose(np.sqrt(squares), expected, rtol=rtol)
                lengths = [np.linalg.norm(np.asarray(part, np.float64)) for part in parts]
                np.testing.assert_array_less(lengths, 1 + 1e-5)

    @parameterized.product(case=["dense", "pixels", "standardized", "standardized_bias"], offset=[10.0, 3000.0])
    def test_no_example_exceeds_the_bound_on_an_accelerator(self, case, offset):
        shape, make = LAYERS[case]
        layer, exact = built(make, shape)
        x, z = example(np.random.default_rng(1), layer, shape, offset)
        expected = np.sqrt(np.sum(reference(exact, x, z) ** 2, axis=1))
        squares, parts = contributed(layer, "gram", x, z, "accelerator")
        np.testing.assert_array_less(expected * (1 - 1e-5), np.sqrt(squares))
        lengths = [np.linalg.norm(np.asarray(part, np.float64)) for part in parts]
        np.testing.assert_array_less(lengths, 1 + 1e-5)

    @parameterized.parameters(((24, 24, 1), 1), ((3, 3, 16), 16))
    def test_an_input_that_is_the_kernel_itself(self, shape, channels):
        # The gradient at the standardized kernel lies along it, and nearly nothing of it is left.
        layer, exact = built(lambda d: WSConv(1, 3, strides=3, use_bias=False, dtype=d), shape, frozen_gain=True)
        kernel = np.asarray(exact.standardized_kernel())[..., 0]
        generator = np.random.default_rng(0)
        tiled = np.tile(kernel, (EXAMPLES, shape[0] // 3, shape[1] // 3, 1))
        x = (tiled + 0.1 * generator.normal(size=tiled.shape)).astype(np.float32)
        z = np.ones((EXAMPLES, shape[0] // 3, shape[1] // 3, 1), np.float32)
        expected = np.sqrt(np.sum(reference(exact, x, z) ** 2, axis=1))
        for route in ("formed_twice", "gram"):
            squares, _ = contributed(layer, route, x, z, "cpu")
            np.testing.assert_allclose(np.sqrt(squares), expected, rtol=1e-5)

    @parameterized.parameters("cpu", "accelerator")
    def test_inputs_so_small_that_outputs_are_nothing_but_bias(self, device):
        layer, _ = built(lambda d: WSConv(64, 3, bias_initializer="ones", dtype=d), (4, 4, 64))
        layer.kernel.assign(0.1 * layer.kernel)
        generator = np.random.default_rng(0)
        x = (1e-8 * generator.normal(size=(EXAMPLES, 4, 4, 64))).astype(np.float32)
        z = (1e9 * generator.normal(size=(EXAMPLES, 2, 2, 64))).astype(np.float32)
        _, parts = contributed(layer, "gram", x, z, device)
        lengths = [np.linalg.norm(np.asarray(part, np.float64)) for part in parts]
        np.testing.assert_array_less(lengths, 1 + 1e-5)

    def test_squares_too_small_for_numbers_count_where_the_other_factor_is_large(self):
        for positions in (1, 3):
            layer, exact = built(lambda d: L.Dense(2, use_bias=False, dtype=d), (positions, 40))
            x = np.full((EXAMPLES, positions, 40), 9e-20, np.float32)
            z = np.full((EXAMPLES, positions, 2), 1e19, np.float32)
            expected = np.sqrt(np.sum(reference(exact, x, z) ** 2, axis=1))
            squares, _ = contributed(layer, "gram", x, z, "cpu")
            np.testing.assert_allclose(np.sqrt(squares), expected, rtol=1e-5)
            squares, _ = contributed(layer, "gram", x, z, "accelerator")
            np.testing.assert_array_less(expected * (1 - 1e-5), np.sqrt(squares))
            if positions == 1:
                np.testing.assert_allclose(np.sqrt(squares), expected, rtol=1e-5)

    @parameterized.parameters("gram", "formed_twice")
    def test_squares_too_small_for_numbers_hide_no_cancellation(self, route):
        layer, _ = built(lambda d: L.Dense(2, use_bias=False, dtype=d), (4, 40))
        z = np.float32([1, -1, 1, -1]).reshape(1, 4, 1) * np.ones((EXAMPLES, 1, 2), np.float32)
        vanish, stay = (
            contributed(layer, route, np.full((EXAMPLES, 4, 40), x, np.float32), z * np.float32(0.9 / x), "accelerator")
            for x in (9e-20, 1.0)
        )
        self.assertGreater(stay[0].numpy().min(), 0)
        np.testing.assert_array_less(0.99 * stay[0].numpy(), vanish[0])

    @parameterized.parameters(0.0, 1.0)
    def test_padding_is_not_formed(self, size):
        # Output gradients of 0, as masked examples have them.
        microbatch = layer_rules.Microbatch(units=EXAMPLES, views=1, device="cpu", dtype=tf.float32)
        inputs, gradients = (tf.constant(value, tf.float32, [EXAMPLES, 50, 50]) for value in (1e3 * size, 0.0))
        lengths = tuple(tf.linalg.diag_part(matrix) for matrix in (inputs, gradients))
        squares, sizes = rounding.squares_of_products(inputs, gradients, lengths, microbatch)
        found, one_by_one = rounding.guarded_norms(squares, sizes, lambda index: tf.constant(1.0), microbatch)
        np.testing.assert_array_equal(found, np.zeros(EXAMPLES))
        self.assertEqual(one_by_one.shape, (0, 1))

    def test_two_views_of_an_example_are_formed_together(self):
        layer, _ = built(LAYERS["pixels"][1], LAYERS["pixels"][0])
        generator = np.random.default_rng(0)
        x = (generator.normal(size=(4, 6, 6, 32)) + 1000).astype(np.float32)
        z = generator.normal(size=(4, 4, 4, 48))
        z = (z - z.mean(axis=(1, 2), keepdims=True)).astype(np.float32)
        microbatch = layer_rules.Microbatch(units=2, views=2, device="cpu", dtype=tf.float32)
        call = layer_rules.Call(saved={"inputs": tf.constant(x)}, tap_gradients=[tf.constant(z)])
        routes = {route.name: route for route in layer_rules.rule_for(layer).gradients(layer, [call], microbatch)[0]}
        np.testing.assert_allclose(
            routes["gram"].build().squared_norms, routes["per_example"].build().squared_norms, rtol=2e-5
        )


class GuardedNormsTest(parameterized.TestCase):
    def guard(self, squares, terms, device, dtype=tf.float32, lengths=0.0, running=0.0, units=0.0):
        microbatch = layer_rules.Microbatch(units=None, views=1, device=device, dtype=dtype)
        squares, terms = tf.constant(squares, dtype), tf.constant(terms, dtype)
        lengths, running = (tf.fill(tf.shape(squares), tf.constant(size, dtype)) for size in (lengths, running))
        sizes = rounding.Sizes(terms=terms, lengths=lengths, running=running, positions=64, units=units)
        found, one_by_one = rounding.guarded_norms(
            squares, sizes, lambda index: 100.0 + tf.cast(index, dtype), microbatch
        )
        return found.numpy(), one_by_one

    def test_forms_the_lost_ones_alone_on_a_cpu(self):
        terms = [2.0, 1e3, 1e3, 0.0, 1e9, 1e9, 1e9]
        found, one_by_one = self.guard([1.0, 1.0, -3.0, 0.0, np.nan, np.inf, -np.inf], terms, "cpu")
        np.testing.assert_array_equal(found, [1.0, 101.0, 102.0, 0.0, np.nan, np.inf, 106.0])
        np.testing.assert_array_equal(one_by_one, [[1], [2], [6]])

    def test_adds_what_rounding_may_have_taken_on_an_accelerator(self):
        terms = [2.0, 1e5, 1e5, 0.0, 1.0, 1.0, 1.0]
        found, one_by_one = self.guard([1.0, 1.0, -1e-4, 0.0, np.nan, np.inf, -np.inf], terms, "accelerator")
        self.assertIsNone(one_by_one)
        self.assertEqual(found[0], 1.0)
        self.assertBetween(found[1], 1.03, 1.2)
        self.assertBetween(found[2], 3e-2, 2e-1)
        self.assertEqual(found[3], 0.0)
        self.assertTrue(np.isnan(found[4]))
        self.assertFalse(np.isfinite(found[5:]).any())

    def test_doubles_lose_less(self):
        found, _ = self.guard([1.0, 1.0], [1e3, 1e12], "cpu", tf.float64)
        np.testing.assert_array_equal(found, [1.0, 101.0])

    @parameterized.parameters(("lengths", 1e2), ("running", 20.0), ("units", 100.0))
    def test_sums_that_lose_digits_and_inner_products_that_err_to_one_side(self, name, size):
        for factor, formed in ((0.2, False), (2.0, True)):
            found, one_by_one = self.guard([1.0], [1.0], "cpu", **{name: factor * size})
            self.assertEqual((found[0] == 100.0, len(one_by_one) == 1), (formed, formed))
            found, _ = self.guard([1.0], [1.0], "accelerator", **{name: factor * size})
            self.assertEqual(found[0] > 1 + 1e-5, formed)

    def test_one_loop_adds_what_the_loops_of_all_layers_would(self):
        rng = np.random.default_rng(0)
        layers = []
        for one_by_one, shape in (([[0], [2]], [3]), ([[2], [3]], [2, 2]), (np.zeros([0, 1]), [4])):
            gradients = tf.constant(rng.normal(size=(4, *shape)))
            factors = tf.constant([0.5, 1.0, 0.25, 0.0], tf.float64)
            layers.append((tf.zeros(shape, tf.float64), factors, tf.constant(one_by_one, tf.int64), gradients))

        def totals():
            return [
                rounding.add_one_by_one([total], factors, one_by_one, lambda index, own=gradients: [own[index]])[0]
                for total, factors, one_by_one, gradients in layers
            ]

        alone = totals()
        with rounding.shared_loop() as whole:
            pending = totals()
        for (_, factors, one_by_one, gradients), one, later in zip(layers, alone, pending, strict=True):
            rows = np.asarray(one_by_one)[:, 0].astype(int)
            expected = np.tensordot(np.asarray(factors)[rows], np.asarray(gradients)[rows], 1)
            np.testing.assert_allclose(one, expected, rtol=1e-12)
            np.testing.assert_allclose(whole[id(later)], expected, rtol=1e-12)

    def test_examples_formed_one_by_one_enter_the_sum_once(self):
        factors, gradients = tf.constant([0.5, 2.0, 3.0]), tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        for one_by_one in (None, tf.zeros([0, 1], tf.int64), tf.constant([[0], [2]], tf.int64)):
            together = rounding.factors_of_others(factors, one_by_one)
            others = tf.linalg.matvec(gradients, together, transpose_a=True)
            (total,) = rounding.add_one_by_one([others], factors, one_by_one, lambda index: [gradients[index]])
            np.testing.assert_allclose(total, [21.5, 27.0])


if __name__ == "__main__":
    absltest.main()
