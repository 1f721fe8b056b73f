"""Weight-standardized convolutions and skip gains against NumPy, and the derivative that engines rely on."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.models import normalizer_free

VARIANTS = (
    dict(gamma=normalizer_free.RELU_GAMMA, epsilon=1e-4, epsilon_form="max", unbiased_variance=False),
    dict(gamma=1.0, epsilon=1e-6, epsilon_form="add", unbiased_variance=True),
    dict(gamma=2.0, epsilon=0.3, epsilon_form="max", unbiased_variance=True),
    dict(gamma=0.5, epsilon=0.3, epsilon_form="add", unbiased_variance=False),
)


def build(channels_in=5, filters=6, size=3, dtype="float64", **kwargs):
    """A built layer with random weights; the first output channel's kernel is small enough for epsilon."""
    layer = normalizer_free.WeightStandardizedConv2D(filters, size, dtype=dtype, **kwargs)
    layer.build((None, 8, 8, channels_in))
    generator = np.random.default_rng(0)
    kernel = generator.normal(0.3, 0.2, layer.kernel.shape)
    kernel[..., 0] *= 1e-3
    layer.kernel.assign(kernel)
    layer.gain.assign(generator.normal(1.0, 0.5, filters))
    layer.bias.assign(generator.normal(size=filters))
    return layer


def numpy_kernel(layer):
    """The standardized kernel by NumPy's own mean and variance."""
    kernel = np.asarray(layer.kernel, np.float64)
    mean = kernel.mean(axis=(0, 1, 2))
    variance = kernel.var(axis=(0, 1, 2), ddof=1 if layer.unbiased_variance else 0) * np.prod(kernel.shape[:-1])
    bound = np.maximum(variance, layer.epsilon) if layer.epsilon_form == "max" else variance + layer.epsilon
    return layer.gamma * np.asarray(layer.gain, np.float64) * (kernel - mean) / np.sqrt(bound)


class WeightStandardizedConv2DTest(parameterized.TestCase):
    @parameterized.parameters(*VARIANTS)
    def test_kernel_is_numpys(self, **variant):
        layer = build(**variant)
        np.testing.assert_allclose(layer.standardized_kernel(), numpy_kernel(layer), rtol=1e-12, atol=1e-14)

    def test_every_channel_has_mean_zero_and_the_norm_of_its_gain(self):
        layer = build(gamma=1.7, epsilon=0.0)
        kernel = np.asarray(layer.standardized_kernel())
        np.testing.assert_allclose(kernel.sum(axis=(0, 1, 2)), 0.0, atol=1e-12)
        np.testing.assert_allclose(np.sqrt((kernel**2).sum(axis=(0, 1, 2))), 1.7 * np.abs(layer.gain), rtol=1e-12)

    def test_gamma_undoes_a_relu(self):
        rectified = np.maximum(np.random.default_rng(0).normal(size=10**6), 0.0)
        self.assertAlmostEqual(normalizer_free.RELU_GAMMA * rectified.std(), 1.0, delta=3e-3)

    @parameterized.parameters(*VARIANTS)
    def test_derivative_is_what_standardization_says(self, **variant):
        layer = build(**variant)
        upstream = np.random.default_rng(1).normal(size=layer.kernel.shape)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer.standardized_kernel() * upstream)
        by_tape, by_tape_gain = tape.gradient(loss, [layer.kernel.value, layer.gain.value])

        parts = layer.standardization()
        normalized, inverse_norm, curvature = (
            np.asarray(part) for part in (parts.normalized, parts.inverse_norm, parts.curvature)
        )
        u = layer.gamma * np.asarray(layer.gain) * upstream
        total, product = u.sum(axis=(0, 1, 2)), (u * normalized).sum(axis=(0, 1, 2))
        by_formula = inverse_norm * (u - total / layer.fan_in - curvature * normalized * product)
        np.testing.assert_allclose(by_tape, by_formula, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(by_tape_gain, layer.gamma * (upstream * normalized).sum(axis=(0, 1, 2)), rtol=1e-9)

    @parameterized.parameters(
        dict(strides=1, padding="same"),
        dict(strides=2, padding="same"),
        dict(strides=(2, 1), padding="valid"),
        dict(dilation_rate=2, padding="same"),
    )
    def test_convolves_with_the_standardized_kernel(self, **options):
        layer = build(**options)
        x = np.random.default_rng(2).normal(size=(3, 8, 8, 5))
        dilations = options.get("dilation_rate", 1)
        expected = tf.nn.convolution(
            x, numpy_kernel(layer), layer.strides, options["padding"].upper(), dilations=dilations
        )
        np.testing.assert_allclose(layer(x), expected + np.asarray(layer.bias), rtol=1e-10, atol=1e-10)

    def test_activation_bias_and_groups_are_keras(self):
        layer = build(channels_in=4, groups=2, activation="relu", dtype="float32", padding="same")
        x = np.random.default_rng(2).normal(size=(3, 8, 8, 4)).astype(np.float32)
        kernel = numpy_kernel(layer).astype(np.float32)
        halves = [tf.nn.conv2d(x[..., 2 * k : 2 * k + 2], kernel[..., 3 * k : 3 * k + 3], 1, "SAME") for k in range(2)]
        expected = np.maximum(np.concatenate(halves, -1) + np.asarray(layer.bias), 0.0)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
        unbiased = normalizer_free.WeightStandardizedConv2D(3, 1, use_bias=False)
        unbiased(x)
        self.assertLen(unbiased.trainable_weights, 2)

    def test_standardizes_in_float32_and_convolves_in_bfloat16(self):
        layer, exact = build(dtype="mixed_bfloat16"), build(dtype="float32")
        x = np.random.default_rng(2).normal(size=(3, 8, 8, 5)).astype(np.float32)
        outputs = layer(x)
        self.assertEqual(outputs.dtype, "bfloat16")
        self.assertEqual(layer.standardized_kernel().dtype, "float32")
        np.testing.assert_array_equal(layer.standardized_kernel(), exact.standardized_kernel())
        reference = np.asarray(exact(x))
        self.assertLess(np.abs(np.asarray(outputs, np.float32) - reference).max(), 0.02 * np.abs(reference).max())

    def test_gradients_of_examples_add_up_under_vectorized_map(self):
        layer = build(dtype="float32", padding="same", strides=2)
        x = tf.random.stateless_normal((4, 8, 8, 5), seed=(0, 1))
        weights = [weight.value for weight in layer.trainable_weights]

        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.math.sin(layer(images)))
            return tape.gradient(loss, weights)

        by_example = tf.function(lambda x: tf.vectorized_map(lambda image: gradients(image[tf.newaxis]), x))(x)
        for parts, total in zip(by_example, gradients(x), strict=True):
            np.testing.assert_allclose(tf.reduce_sum(parts, 0), total, rtol=1e-4, atol=1e-5)

    def test_config_round_trip(self):
        layer = build(dtype="float32", strides=2, padding="same", gain_initializer="zeros", **VARIANTS[3])
        clone = keras.layers.deserialize(keras.layers.serialize(layer))
        self.assertIsInstance(clone, normalizer_free.WeightStandardizedConv2D)
        self.assertEqual(clone.get_config(), layer.get_config())
        np.testing.assert_array_equal(clone.gain, np.zeros(6))

    def test_refuses_what_it_cannot_do(self):
        with self.assertRaisesRegex(ValueError, "`epsilon_form` must be one of .*Received: epsilon_form='sum'"):
            normalizer_free.WeightStandardizedConv2D(2, 3, epsilon_form="sum")
        with self.assertRaisesRegex(ValueError, "`epsilon` must not be negative. Received: epsilon=-1"):
            normalizer_free.WeightStandardizedConv2D(2, 3, epsilon=-1)
        with self.assertRaisesRegex(ValueError, "at least two weights per output channel"):
            normalizer_free.WeightStandardizedConv2D(2, 1).build((None, 8, 8, 1))


class SkipGainTest(parameterized.TestCase):
    def test_multiplies_by_alpha_and_gain(self):
        layer = normalizer_free.SkipGain(0.5, alpha=0.2)
        x = np.arange(8.0, dtype=np.float32).reshape(2, 4)
        np.testing.assert_allclose(layer(x), 0.1 * x, rtol=1e-6)
        self.assertEqual(layer.count_params(), 1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x))
        np.testing.assert_allclose(tape.gradient(loss, layer.gain.value), 0.2 * x.sum(), rtol=1e-6)

    def test_keeps_its_gain_in_float32(self):
        layer = normalizer_free.SkipGain(0.3, alpha=0.2, dtype="mixed_bfloat16")
        self.assertEqual(layer(np.ones((1, 2), np.float32)).dtype, "bfloat16")
        self.assertEqual(layer.gain.dtype, "float32")

    def test_config_round_trip(self):
        layer = normalizer_free.SkipGain(0.0, alpha=0.2, name="gain")
        clone = keras.layers.deserialize(keras.layers.serialize(layer))
        self.assertEqual(clone.get_config(), layer.get_config())


if __name__ == "__main__":
    absltest.main()
