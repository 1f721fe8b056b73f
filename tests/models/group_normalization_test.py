"""Our group normalization is Keras' own, to rounding: outputs, gradients, weights, configuration."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.models import group_normalization


def pair(groups, channels, dtype="float32", **kwargs):
    """Our layer and Keras', with the same random scale and shift."""
    layers = (
        group_normalization.GroupNormalization(groups, epsilon=1e-3, dtype=dtype, **kwargs),
        keras.layers.GroupNormalization(groups, epsilon=1e-3, dtype=dtype, **kwargs),
    )
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=channels), generator.normal(size=channels)]
    for layer in layers:
        layer.build((None, *[4] * 2, channels))
        layer.input_spec = None
        layer.set_weights(weights[: len(layer.weights)])
    return layers


def outputs_and_gradients(layer, x):
    """Outputs, and the gradients of a nonlinear function of them by the input and the weights."""
    weights = [weight.value for weight in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.math.sin(tf.cast(y, tf.float64)))
    return [y, *tape.gradient(loss, [x, *weights])]


class GroupNormalizationTest(parameterized.TestCase):
    @parameterized.parameters(
        dict(shape=(3, 5, 4, 8), groups=4),
        dict(shape=(3, 5, 4, 8), groups=1),
        dict(shape=(3, 5, 4, 8), groups=-1),
        dict(shape=(1, 6, 6), groups=3),
        dict(shape=(4, 6), groups=3),
        dict(shape=(2, 3, 2, 2, 8), groups=2),
        dict(shape=(3, 5, 4, 8), groups=4, center=False),
        dict(shape=(3, 5, 4, 8), groups=4, scale=False, center=False),
    )
    def test_is_keras(self, shape, groups, **kwargs):
        ours, stock = pair(groups, shape[-1], dtype="float64", **kwargs)
        x = tf.constant(np.random.default_rng(1).normal(2.0, 3.0, shape))
        for a, b in zip(outputs_and_gradients(ours, x), outputs_and_gradients(stock, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)

    def test_a_large_mean_costs_no_more_accuracy_than_in_keras(self):
        ours, stock = pair(4, 8)
        exact, _ = pair(4, 8, dtype="float64")
        x = np.random.default_rng(1).normal(1000.0, 1.0, (3, 16, 16, 8)).astype(np.float32)
        reference = np.asarray(exact(x.astype(np.float64)))
        error = np.abs(np.asarray(ours(x)) - reference).max()
        self.assertLess(error, 2.0 * np.abs(np.asarray(stock(x)) - reference).max() + 1e-6)

    def test_computes_bfloat16_in_float32(self):
        ours, stock = pair(4, 8, dtype="mixed_bfloat16")
        x = tf.cast(tf.random.stateless_normal((3, 5, 4, 8), seed=(0, 1)), tf.bfloat16)
        self.assertEqual(ours(x).dtype, "bfloat16")
        np.testing.assert_allclose(
            np.asarray(ours(x), np.float32), np.asarray(stock(x), np.float32), rtol=0.01, atol=0.01
        )

    def test_takes_images_of_unknown_size(self):
        ours, stock = pair(4, 8)
        x = np.random.default_rng(1).normal(size=(3, 5, 4, 8)).astype(np.float32)
        spec = tf.TensorSpec((None, None, None, 8), tf.float32)
        np.testing.assert_allclose(tf.function(ours, input_signature=[spec])(x), stock(x), rtol=1e-4, atol=1e-5)

    def test_gradients_of_examples_add_up_under_vectorized_map(self):
        ours, _ = pair(4, 8)
        x = tf.random.stateless_normal((4, 5, 4, 8), seed=(0, 1))
        total = outputs_and_gradients(ours, x)[2:]
        by_example = tf.function(
            lambda x: tf.vectorized_map(lambda image: outputs_and_gradients(ours, image[tf.newaxis])[2:], x)
        )(x)
        for parts, whole in zip(by_example, total, strict=True):
            np.testing.assert_allclose(tf.reduce_sum(parts, 0), whole, rtol=1e-4, atol=1e-5)

    def test_config_round_trip(self):
        layer = group_normalization.GroupNormalization(4, epsilon=0.1, center=False, name="norm")
        clone = keras.layers.deserialize(keras.layers.serialize(layer))
        self.assertIsInstance(clone, group_normalization.GroupNormalization)
        self.assertEqual(clone.get_config(), layer.get_config())

    def test_refuses_another_axis(self):
        with self.assertRaisesRegex(ValueError, "`axis` must be -1, the channels. Received: axis=1"):
            group_normalization.GroupNormalization(4, axis=1)


if __name__ == "__main__":
    absltest.main()
