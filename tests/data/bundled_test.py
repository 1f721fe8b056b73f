"""The bundled image sets: what they hold, that their splits are disjoint, and how they fail."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
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

    def test_the_first_training_images_can_be_the_test_images(self):
        whole, split = bundled.load("digits"), bundled.load("digits", held_out=100)
        np.testing.assert_array_equal(split.test_images, whole.train_images[:100])
        np.testing.assert_array_equal(split.test_labels, whole.train_labels[:100])
        np.testing.assert_array_equal(split.train_images, whole.train_images[100:])
        np.testing.assert_array_equal(split.train_labels, whole.train_labels[100:])
        with self.assertRaisesRegex(ValueError, "`held_out` must be below the 1437 .* digits. Received: held_out=1437"):
            bundled.load("digits", held_out=1437)

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

    def test_mnist_that_cannot_be_loaded_is_one_sentence(self):
        failure = Exception("URL fetch failure on https://somewhere: None --\nno network")
        with mock.patch.object(keras.datasets.mnist, "load_data", side_effect=failure):
            with self.assertRaisesRegex(
                ValueError,
                r"^MNIST could not be loaded: set `data_dir` to a folder that holds Keras' mnist.npz. "
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
            with self.assertRaisesRegex(ValueError, "^MNIST could not be loaded: .*$"):
                bundled.load("mnist", folder)

    @parameterized.parameters(
        ({"x_train": np.zeros((4, 28, 28))}, "x_train must be uint8 .*, not float64"),
        ({"x_test": np.zeros((2, 28, 28, 1), np.uint8)}, r"x_test must be uint8 .*, not uint8 \[2, 28, 28, 1\]"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, np.uint8)}, "at least one example"),
        ({"x_test": np.zeros((2, 20, 28), np.uint8)}, "images of one size"),
        ({"y_train": np.zeros(3, np.uint8)}, r"y_train must have one label per image, 4 in all, not the shape \[3\]"),
        ({"y_train": np.eye(4, dtype=np.uint8)}, r"y_train must have one label .* \[4, 4\]"),
        ({"y_train": np.array([0, 9, 10, 1], np.uint8)}, "whole numbers from 0 to 9, but its label 2 is 10"),
        ({"y_test": np.array([0, -1], np.int64)}, "y_test must hold .* label 1 is -1"),
        ({"y_test": np.array([0, 0.5])}, "y_test must hold .* label 1 is 0.5"),
        ({"y_test": np.array([0, np.nan])}, "y_test must hold .* label 1 is nan"),
        ({"y_test": np.array(["0", "1"])}, "y_test must hold whole numbers, not <U1"),
    )
    def test_what_is_not_mnist_is_one_sentence(self, changed, message):
        folder = self.create_tempdir().full_path
        arrays = {"x_train": np.zeros((4, 28, 28), np.uint8), "y_train": np.arange(4, dtype=np.uint8)}
        arrays |= {"x_test": np.zeros((2, 28, 28), np.uint8), "y_test": np.array([9.0, 0.0])}
        path = os.path.join(folder, "mnist.npz")
        np.savez(path, **arrays)
        self.assertEqual(bundled.load("mnist", folder).test_labels.tolist(), [9, 0])
        np.savez(path, **arrays | changed)
        with self.assertRaisesRegex(ValueError, f"^`data_dir` must hold MNIST as Keras has it: .*{message}") as caught:
            bundled.load("mnist", folder)
        self.assertNotIn("\n", str(caught.exception))

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


class ImageSetTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.digits = bundled.load("digits", train_size=200)

    def test_says_what_it_holds(self):
        self.assertEqual(self.digits.image_shape, (8, 8, 1))
        self.assertEqual(self.digits.num_train_examples, 200)

    def test_importing_it_imports_no_tensorflow(self):
        code = "import sys; from noisy_sgd.data import bundled; sys.exit(int('tensorflow' in sys.modules))"
        root = pathlib.Path(bundled.__file__).parents[2]
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode, 0)

    def test_reads_in_a_map_what_the_arrays_hold(self):
        chosen = np.random.default_rng(0).integers(0, 200, (5, 7))
        read = self.digits.train_reader()
        dataset = tf.data.Dataset.from_tensor_slices(chosen).map(read)
        self.assertEqual(dataset.element_spec[0].shape, (7, 8, 8, 1))
        for indices, (images, labels) in zip(chosen, dataset, strict=True):
            self.assertEqual((images.dtype, labels.dtype), (tf.uint8, tf.int32))
            np.testing.assert_array_equal(images, self.digits.train_images[indices])
            np.testing.assert_array_equal(labels, self.digits.train_labels[indices])

    def test_the_images_are_not_written_into_the_graph(self):
        graph = tf.function(self.digits.train_reader()).get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
        self.assertLess(graph.as_graph_def().ByteSize(), self.digits.train_images.nbytes / 2)

    @parameterized.parameters(1, 7, 120, 359, 360, 361, 5000)
    def test_batches_hold_every_test_image_once(self, size):
        batches = self.digits.test_batches(size)
        for _ in range(2):
            shapes = {tuple(tuple(part.shape) for part in batch) for batch in batches}
            self.assertEqual(shapes, {((min(size, 360), 8, 8, 1), (min(size, 360),), (min(size, 360),))})
            images, labels, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            self.assertEqual((images.dtype, labels.dtype, mask.dtype), (np.uint8, np.int32, bool))
            np.testing.assert_array_equal(mask, np.arange(len(mask)) < 360)
            np.testing.assert_array_equal(images[mask], self.digits.test_images)
            np.testing.assert_array_equal(labels[mask], self.digits.test_labels)

    def test_refuses_batches_without_images(self):
        with self.assertRaisesRegex(ValueError, "^`size` must be at least 1. Received: size=0$"):
            self.digits.test_batches(0)

    def test_fingerprint_follows_the_training_data(self):
        first, again = bundled.load("digits"), bundled.load("digits")
        self.assertRegex(first.fingerprint(), "^[0-9a-f]{64}$")
        self.assertEqual(first.fingerprint(), again.fingerprint())
        pixel, label = first.train_images.copy(), first.train_labels.copy()
        pixel[3, 4, 5] ^= 1
        label[7] = (label[7] + 1) % 10
        others = [
            self.digits,
            bundled.load("digits", train_size=200, subset_seed=1),
            dataclasses.replace(first, train_images=pixel),
            dataclasses.replace(first, train_labels=label),
            dataclasses.replace(first, train_images=first.train_images.reshape(-1, 4, 16, 1)),
            dataclasses.replace(first, train_images=first.train_images[::-1]),
        ]
        self.assertLen({one.fingerprint() for one in (first, *others)}, 1 + len(others))
        transposed = np.asfortranarray(first.train_images)
        self.assertEqual(dataclasses.replace(first, train_images=transposed).fingerprint(), first.fingerprint())


if __name__ == "__main__":
    absltest.main()
