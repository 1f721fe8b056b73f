"""Wide residual networks: sizes, order of the layers, seeds, saving."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import models
from noisy_sgd.models import normalizer_free


def parameters(depth, width, classes, channels, per_output):
    """Parameters counted by hand; `per_output` is 2 with gain and bias, 1 with bias alone."""
    total = 9 * channels * 16 + per_output * 16
    before = 16
    for stage in range(3):
        after = 16 * 2**stage * width
        for block in range((depth - 4) // 6):
            if block == 0:
                total += 2 * before + before * after + per_output * after
            total += 2 * before + 9 * before * after + per_output * after
            total += 2 * after + 9 * after * after + per_output * after
            before = after
    return total + 2 * before + before * classes + classes


def small(**kwargs):
    return models.wide_resnet(10, 1, 5, **{"input_shape": (8, 8, 1), "seed": 0, **kwargs})


class WideResNetTest(parameterized.TestCase):
    @parameterized.parameters((True, 2_753_818), (False, 2_751_562))
    def test_wrn_16_4_has_its_parameters(self, weight_standardization, count):
        model = models.wide_resnet(16, 4, 10, weight_standardization=weight_standardization)
        self.assertEqual(count, parameters(16, 4, 10, 3, 2 if weight_standardization else 1))
        self.assertEqual(model.count_params(), count)
        self.assertEqual(model.input_shape, (None, 32, 32, 3))
        self.assertEqual(model.get_layer("stage3_block2_add").output.shape, (None, 8, 8, 256))

    def test_depth_and_width_count(self):
        self.assertEqual(models.wide_resnet(22, 2, 7, groups=8).count_params(), parameters(22, 2, 7, 3, 2))

    @parameterized.parameters((True, normalizer_free.WeightStandardizedConv2D), (False, keras.layers.Conv2D))
    def test_order_is_relu_norm_convolution(self, weight_standardization, convolution):
        model = small(weight_standardization=weight_standardization)
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        self.assertEqual({type(layer) for layer in convolutions}, {convolution})
        for layer in convolutions[1:]:
            norm = layer.input._keras_history.operation
            self.assertIsInstance(norm, keras.layers.GroupNormalization, layer.name)
            self.assertEqual((norm.groups, norm.epsilon), (16, 1e-5))
            self.assertIsInstance(norm.input._keras_history.operation, keras.layers.ReLU)
        self.assertFalse(any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers))

    def test_examples_do_not_mix(self):
        model = small()
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.float32)
        together = np.asarray(model(images, training=True))
        alone = np.concatenate([model(images[k : k + 1], training=True) for k in range(4)])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)

    def test_weights_are_a_function_of_the_seed(self):
        first, again, other = small(seed=3), small(seed=3), small(seed=4)
        for a, b in zip(first.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        self.assertFalse(np.array_equal(first.get_layer("stem").kernel, other.get_layer("stem").kernel))
        kernels = [first.get_layer(name).kernel for name in ("stage1_block1_conv1", "stage1_block1_conv2")]
        self.assertFalse(np.array_equal(*kernels))

    def test_saves_and_loads(self):
        model = small(pixel_range=(0.0, 16.0))
        generator = np.random.default_rng(0)
        model.set_weights([np.asarray(weight) + generator.normal(size=weight.shape) for weight in model.weights])
        path = os.path.join(self.create_tempdir().full_path, "model.keras")
        model.save(path)
        images = generator.integers(0, 17, (3, 8, 8, 1)).astype(np.float32)
        np.testing.assert_array_equal(keras.models.load_model(path)(images), model(images))

    def test_gradients_of_examples_add_up_under_vectorized_map(self):
        model = small()
        weights = [weight.value for weight in model.trainable_weights]
        images = tf.random.stateless_uniform((3, 8, 8, 1), seed=(0, 1), maxval=255.0)

        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.nn.log_softmax(model(images, training=True))[:, 0])
            return tape.gradient(loss, weights)

        by_example = tf.function(lambda x: tf.vectorized_map(lambda image: gradients(image[tf.newaxis]), x))(images)
        for parts, total in zip(by_example, gradients(images), strict=True):
            np.testing.assert_allclose(tf.reduce_sum(parts, 0), total, rtol=2e-3, atol=1e-4)

    def test_computes_in_bfloat16_and_answers_in_float32(self):
        images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.float32)
        mixed, exact = small(dtype="mixed_bfloat16"), small()
        self.assertEqual({weight.dtype for weight in mixed.weights}, {"float32"})
        self.assertEqual(mixed(images).dtype, "float32")
        reference = np.asarray(exact(images))
        self.assertLess(np.abs(np.asarray(mixed(images)) - reference).max(), 0.1 * np.abs(reference).max())

    def test_builds_the_class_it_is_given(self):
        class Special(keras.Model):
            pass

        self.assertIsInstance(small(model_class=Special), Special)

    @parameterized.parameters(
        (dict(depth=12), "`depth` must be 6 n . 4.*Received: depth=12"),
        (dict(depth=4), "`depth` must be 6 n . 4.*Received: depth=4"),
        (dict(width=0), "`width` must be at least 1. Received: width=0"),
        (dict(num_classes=0), "`num_classes` must be at least 1. Received: num_classes=0"),
        (dict(groups=3), "`groups` must divide the 16 channels of the first layer. Received: groups=3"),
    )
    def test_refuses_what_cannot_be(self, change, message):
        with self.assertRaisesRegex(ValueError, message):
            models.wide_resnet(**{"depth": 16, "width": 1, "num_classes": 10, **change})


if __name__ == "__main__":
    absltest.main()
