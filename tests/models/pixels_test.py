"""The input of image models."""

import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.models import pixels


class PixelInputTest(parameterized.TestCase):
    @parameterized.parameters((0.0, 255.0), (0.0, 16.0), (-1.0, 3.0))
    def test_maps_the_range_to_minus_one_and_one(self, low, high):
        model = keras.Model(*pixels.pixel_input((1, 3, 1), (low, high)))
        images = np.array([low, (low + high) / 2, high]).reshape(1, 1, 3, 1)
        np.testing.assert_allclose(np.ravel(model(images)), [-1.0, 0.0, 1.0], atol=1e-6)

    def test_takes_bytes_as_they_are(self):
        model = keras.Model(*pixels.pixel_input((1, 2, 1), (0.0, 255.0)))
        images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
        np.testing.assert_allclose(np.ravel(model(images)), [-1.0, 1.0], atol=1e-6)

    def test_no_range_changes_nothing(self):
        inputs, images = pixels.pixel_input((2, 2, 1), None)
        self.assertIs(inputs, images)

    @parameterized.parameters(("mixed_bfloat16", "float32"), ("float64", "float64"), (None, "float32"))
    def test_is_in_the_precision_of_the_weights(self, dtype, expected):
        inputs, images = pixels.pixel_input((2, 2, 1), (0.0, 1.0), dtype)
        self.assertEqual((inputs.dtype, images.dtype), (expected, expected))

    def test_channels_are_normalized(self):
        model = keras.Model(*pixels.pixel_input((1, 2, 2), None, normalization=([1.0, 10.0], [2.0, 5.0])))
        images = np.array([[1.0, 10.0], [5.0, 0.0]]).reshape(1, 1, 2, 2)
        np.testing.assert_allclose(np.ravel(model(images)), [0.0, 0.0, 2.0, -2.0], atol=1e-6)
        for wrong in (([1.0], [1.0]), ([1.0, 2.0], [1.0, 0.0])):
            with self.assertRaisesRegex(
                ValueError, "^`normalization` must hold a mean and a positive .* the 2 channels"
            ):
                pixels.pixel_input((1, 2, 2), None, normalization=wrong)

    def test_refuses_what_is_no_image(self):
        with self.assertRaisesRegex(ValueError, r"`input_shape` must be \(height, width, channels\). Received:"):
            pixels.pixel_input((28, 28), (0.0, 255.0))
        with self.assertRaisesRegex(ValueError, r"`pixel_range` must be .* Received: pixel_range=\(1.0, 1.0\)"):
            pixels.pixel_input((28, 28, 1), (1.0, 1.0))


if __name__ == "__main__":
    absltest.main()
