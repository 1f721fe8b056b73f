"""The bundled image sets: what they hold, that their splits are disjoint, and how they fail."""

import os
import pathlib
from unittest import mock

import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.data import bundled


def mnist_folder():
    """Where mnist.npz lies on this machine: MNIST_DIR, or Keras' cache; None if in neither."""
    keras_home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    folders = [os.environ.get("MNIST_DIR", ""), os.path.join(keras_home, "datasets")]
    return next((folder for folder in folders if folder and os.path.isfile(os.path.join(folder, "mnist.npz"))), None)


def write_mnist(folder, **arrays):
    """A file of MNIST's layout with 6 training and 4 test images."""
    generator = np.random.default_rng(0)
    contents = {
        "x_train": generator.integers(0, 256, (6, 28, 28), np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": generator.integers(0, 256, (4, 28, 28), np.uint8),
        "y_test": np.arange(4, dtype=np.uint8),
    }
    np.savez(os.path.join(folder, "mnist.npz"), **{**contents, **arrays})
    return contents


class LoadTest(parameterized.TestCase):
    def assert_well_formed(self, images):
        for part in (images.train_images, images.test_images):
            self.assertEqual(part.dtype, np.uint8)
            self.assertEqual(part.ndim, 4)
            self.assertLessEqual(images.pixel_range[0], part.min())
            self.assertEqual(images.pixel_range[1], part.max())
        for part in (images.train_labels, images.test_labels):
            self.assertEqual(part.dtype, np.int32)
            self.assertEqual(set(part), set(range(images.num_classes)))
        self.assertLen(images.train_labels, len(images.train_images))
        self.assertLen(images.test_labels, len(images.test_images))
        held_out = {image.tobytes() for image in images.test_images}
        self.assertEmpty([image for image in images.train_images if image.tobytes() in held_out])

    def test_digits(self):
        digits = bundled.load("digits")
        self.assert_well_formed(digits)
        self.assertEqual(digits.train_images.shape, (1437, 8, 8, 1))
        self.assertEqual(digits.test_images.shape, (360, 8, 8, 1))
        self.assertEqual((digits.name, digits.num_classes, digits.pixel_range), ("digits", 10, (0.0, 16.0)))
        np.testing.assert_array_equal(digits.train_labels[:10], np.arange(10))
        np.testing.assert_array_equal(bundled.load("digits").train_images, digits.train_images)

    def test_mnist(self):
        folder = mnist_folder()
        if folder is None:
            self.skipTest("No mnist.npz in $MNIST_DIR or in Keras' cache.")
        images = bundled.load("mnist", folder)
        self.assert_well_formed(images)
        self.assertEqual(images.train_images.shape, (60_000, 28, 28, 1))
        self.assertEqual(images.test_images.shape, (10_000, 28, 28, 1))
        np.testing.assert_array_equal(images.train_labels[:5], [5, 0, 4, 1, 9])

    def test_mnist_is_found_in_the_folder(self):
        folder = self.create_tempdir().full_path
        contents = write_mnist(folder)
        with mock.patch.object(keras.datasets.mnist, "load_data", side_effect=AssertionError("downloaded")):
            images = bundled.load("mnist", pathlib.Path(folder))
        np.testing.assert_array_equal(images.train_images[..., 0], contents["x_train"])
        np.testing.assert_array_equal(images.test_images[..., 0], contents["x_test"])
        np.testing.assert_array_equal(images.test_labels, contents["y_test"])

    @parameterized.parameters(None, "/nowhere")
    def test_mnist_is_otherwise_keras_own(self, data_dir):
        parts = (np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
        with mock.patch.object(keras.datasets.mnist, "load_data", return_value=(parts, parts)) as load_data:
            self.assertLen(bundled.load("mnist", data_dir).train_images, 2)
        load_data.assert_called_once_with()

    def test_mnist_that_cannot_be_had_is_one_sentence(self):
        failure = Exception("URL fetch failure on https://somewhere: None --\nno network")
        with mock.patch.object(keras.datasets.mnist, "load_data", side_effect=failure):
            with self.assertRaisesRegex(
                ValueError,
                r"^MNIST could not be had: point `data_dir` at a folder that holds Keras' mnist.npz. "
                r"Received: data_dir='/nowhere' \(URL fetch failure .* no network\)$",
            ):
                bundled.load("mnist", "/nowhere")

    def test_a_damaged_file_is_one_sentence(self):
        folder = self.create_tempdir().full_path
        write_mnist(folder)
        path = os.path.join(folder, "mnist.npz")
        contents = pathlib.Path(path).read_bytes()
        for length in (0, 100, len(contents) // 2, len(contents) - 1):
            pathlib.Path(path).write_bytes(contents[:length])
            with self.assertRaisesRegex(ValueError, "^MNIST could not be had: .*$"):
                bundled.load("mnist", folder)

    def test_unknown_sets_are_refused_with_the_known_ones(self):
        with self.assertRaisesRegex(ValueError, "^`dataset` must be one of digits, mnist. Received: dataset='cifar'$"):
            bundled.load("cifar")


class SubsetTest(parameterized.TestCase):
    def test_keeps_the_first_of_a_permutation_and_moves_nothing_else(self):
        digits = bundled.load("digits")
        small, large = (bundled.load("digits", train_size=size) for size in (100, 700))
        np.testing.assert_array_equal(small.train_images, large.train_images[:100])
        np.testing.assert_array_equal(small.train_labels, large.train_labels[:100])
        np.testing.assert_array_equal(small.test_images, digits.test_images)
        np.testing.assert_array_equal(small.test_labels, digits.test_labels)

        def pairs(images):
            return sorted((x.tobytes(), int(y)) for x, y in zip(images.train_images, images.train_labels, strict=True))

        self.assertEqual(pairs(bundled.load("digits", train_size=1437)), pairs(digits))

    def test_is_a_function_of_the_seed(self):
        first, again = (bundled.load("digits", train_size=100, subset_seed=4) for _ in range(2))
        np.testing.assert_array_equal(first.train_images, again.train_images)
        other = bundled.load("digits", train_size=100, subset_seed=5)
        self.assertFalse(np.array_equal(first.train_images, other.train_images))

    @parameterized.parameters(0, -3, 1438)
    def test_refuses_sizes_the_set_does_not_have(self, size):
        with self.assertRaisesRegex(
            ValueError, f"^`train_size` must be between 1 and the 1437 .* of digits. Received: train_size={size}$"
        ):
            bundled.load("digits", train_size=size)


if __name__ == "__main__":
    absltest.main()
