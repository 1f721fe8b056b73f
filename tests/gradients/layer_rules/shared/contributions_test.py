import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients.layer_rules import convolution
from noisy_sgd.gradients.layer_rules.shared import contributions, positions, registry


def route(name, seconds, kept_bytes, temporary_bytes=0.0):
    return contributions.Route(
        name=name, seconds=seconds, kept_bytes=kept_bytes, temporary_bytes=temporary_bytes, build=lambda: None
    )


def cheapest(routes):
    return min(routes, key=lambda route: route.seconds).name


def convolution_routes(size, inputs, outputs, *, device="cpu", kernel=3):
    """Routes of a convolution of 64 images, as the engine would get them."""
    layer = keras.layers.Conv2D(outputs, kernel, padding="same")
    layer.build((None, size, size, inputs))
    microbatch = contributions.Microbatch(units=64, views=1, device=device, dtype=tf.float32)
    call = registry.Call(
        saved={"inputs": tf.zeros([64, size, size, inputs])}, tap_gradients=[tf.zeros([64, size, size, outputs])]
    )
    return convolution.gradients(layer, [call], microbatch)[0]


class ChooseTest(parameterized.TestCase):
    @parameterized.parameters((10.0, 0.0, "kept"), (9.0, 1.0, "kept"), (9.0, 0.0, "gram"), (0.0, 0.0, "gram"))
    def test_keeps_gradients_that_replace_as_much(self, replaced, spare, expected):
        routes = [route("kept", 1.0, 10.0), route("twice", 3.0, 0.0), route("gram", 2.0, 0.0)]
        self.assertEqual(contributions.choose(routes, replaced, spare).name, expected)

    @parameterized.parameters((1.1, 0.0, "twice"), (1.1, 4.0, "gram"), (1.3, 0.0, "gram"))
    def test_takes_of_those_as_good_the_one_that_needs_least_memory(self, seconds, temporary, expected):
        unit = contributions.NEGLIGIBLE_BYTES
        routes = [route("gram", 1.0, 0.0, 2.0 * unit), route("twice", seconds, 0.0, temporary * unit)]
        self.assertEqual(contributions.choose(routes, 0.0, 0.0).name, expected)
        small = [route("gram", 1.0, 0.0, 0.5 * unit), route("twice", seconds, 0.0, 0.0)]
        self.assertEqual(contributions.choose(small, 0.0, 0.0).name, "gram")

    def test_keeps_the_least_where_every_route_keeps_something(self):
        routes = [route("kept", 1.0, 10.0), route("less", 3.0, 5.0)]
        self.assertEqual(contributions.choose(routes, 0.0, 0.0).name, "less")


class EstimatesTest(parameterized.TestCase):
    # The cheaper routes as measured on two CPU cores, 64 images.
    @parameterized.parameters(
        (32, 64, 64, 3, "per_example"),
        (16, 128, 128, 3, "per_example"),
        (8, 256, 256, 3, "gram"),
        (32, 16, 64, 1, "per_example"),
    )
    def test_convolution_takes_the_measured_route(self, size, inputs, outputs, kernel, expected):
        self.assertEqual(cheapest(convolution_routes(size, inputs, outputs, kernel=kernel)), expected)

    def test_many_positions_form_and_few_positions_multiply(self):
        def routes(count, width):
            layer = keras.layers.Dense(width)
            layer.build((None, count, width))
            microbatch = contributions.Microbatch(units=8, views=1, device="cpu", dtype=tf.float32)
            tensor = tf.zeros([8, count, width])
            return positions.routes(layer.kernel, tensor, tensor, microbatch, lambda sums: sums[0])

        self.assertEqual(cheapest(routes(512, 32)), "per_example")
        self.assertEqual(cheapest(routes(4, 512)), "gram")
        self.assertEqual(cheapest(routes(1, 32)), "gram")

    @parameterized.parameters("cpu", "accelerator")
    def test_every_group_has_a_route_that_keeps_nothing(self, device):
        self.assertIn(0.0, [found.kept_bytes for found in convolution_routes(8, 4, 4, device=device)])


class KeptTest(absltest.TestCase):
    def test_norms_and_sums_of_gradients_at_hand(self):
        weight = keras.Variable(np.zeros((2, 3)))
        gradients = np.random.default_rng(0).normal(size=(4, 2, 3))
        factors = np.array([1.0, 0.5, 0.0, 2.0])
        found = contributions.kept(weight, tf.constant(gradients))
        np.testing.assert_allclose(found.squared_norms, np.sum(gradients**2, axis=(1, 2)))
        (value,) = found.sums(tf.constant(factors), found.tensors)
        np.testing.assert_allclose(value, np.einsum("u,uij->ij", factors, gradients))

    def test_refuses_gradients_that_have_not_the_shape_of_the_weight(self):
        for shape in ((4, 7, 3), (4, 6), (4,), (4, 3, 2), (4, 5, 2, 3), ()):
            with self.assertRaisesRegex(
                ValueError, r"`per_example` must be \[units, \*\(2, 3\)\].*Received: per_example"
            ):
                contributions.kept(keras.Variable(np.zeros((2, 3))), tf.zeros(shape))
        self.assertEqual(contributions.kept(keras.Variable(0.0), tf.ones([4])).tensors[0].shape, (4, 1))

    def test_views_add_up_in_the_precision_of_norms(self):
        microbatch = contributions.Microbatch(units=2, views=3, device="cpu", dtype=tf.float32)
        summed = microbatch.sum_views(tf.ones([6, 4], tf.bfloat16))
        self.assertEqual(summed.dtype, tf.float32)
        np.testing.assert_array_equal(summed, np.full((2, 4), 3.0))


if __name__ == "__main__":
    absltest.main()
