"""Image sets that need no preparation: the digits that scikit-learn contains, and MNIST, which Keras downloads.

digits = bundled.load("digits", train_size=500)
digits.train_images.shape      # (500, 8, 8, 1), uint8, values in digits.pixel_range = (0.0, 16.0)
read = digits.train_reader()
images, labels = read(tf.constant([3, 499], tf.int64))     # what a tf.data map calls
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from noisy_sgd import checks, keys

DIGITS_TRAIN_SIZE = 1437


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images in memory, split for training and test.

    Attributes:
        name: what `load` was asked for.
        train_images: uint8 [examples, height, width, channels].
        train_labels: int32 [examples], in [0, num_classes).
        test_images: uint8 [examples, height, width, channels].
        test_labels: int32 [examples].
        num_classes: number of classes.
        pixel_range: lowest and highest value that a pixel of this format can have.
        normalization: None, these images have no customary means and standard deviations.
        present: bool [examples], False for a training example that is missing although its number is drawn, as in the
            neighbor of a data set. Defaults to None: all are present.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    pixel_range: tuple[float, float]
    normalization: None = None
    present: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.train_images.shape[1:]

    @property
    def num_train_examples(self) -> int:
        """How many training examples there are."""
        return len(self.train_labels)

    @property
    def train_image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image that `train_reader` reads."""
        return self.image_shape

    def train_reader(self) -> Callable[..., tuple[Any, Any]]:
        """A function from indices int64 [m] to images uint8 [m, height, width, channels] and labels int32 [m].

        It is made of TensorFlow's operations, for `tf.data.Dataset.map`. Make it once, outside the mapped function.
        """
        import tensorflow as tf  # Takes seconds to import; using only the arrays does not need it.

        # Outside the map: a constant made inside it would be written into the graph image by image.
        # On the CPU: the pipeline runs there, and the images may be more than the accelerator's memory holds.
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.train_images), tf.constant(self.train_labels)

        def read(indices):
            return tf.gather(images, indices), tf.gather(labels, indices)

        return read

    def test_batches(self, size: int) -> Sequence[tuple[Any, Any, Any]]:
        """The test images in order, in batches of one shape.

        Args:
            size: of a batch; all test images are one batch where they are fewer.

        Returns:
            Batches of images uint8 [size, height, width, channels], labels int32 [size] and mask bool [size]; the last
            one is padded with the first image, and the mask says so.

        Raises:
            ValueError: for a size below 1.
        """
        import tensorflow as tf  # As above.

        checks.at_least("size", size, 1)
        count = len(self.test_labels)
        size = min(size, count)
        batches = []
        for first in range(0, count, size):
            rows = np.arange(first, first + size)
            mask = rows < count
            kept = np.where(mask, rows, 0)
            parts = (self.test_images[kept], self.test_labels[kept], mask)
            batches.append(tuple(tf.constant(part) for part in parts))
        return batches

    def fault(self, error: Exception) -> str | None:
        """What an error of a failed step says about these images; nothing, as they are in memory."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the training images and labels, in hexadecimal: the same for the same data in the same order."""
        digest = hashlib.sha256(b"noisy_sgd image set")
        for part in (self.train_images, self.train_labels, *(() if self.present is None else (self.present,))):
            digest.update(f"\0{part.dtype.str}{part.shape}\0".encode())
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()


def load(
    name: str,
    data_dir: str | pathlib.Path | None = None,
    *,
    train_size: int | None = None,
    subset_seed: int = 0,
    held_out: int = 0,
) -> ImageSet:
    """Loads an image set with its public split.

    Args:
        name: "digits" (1,797 images of 8x8; the last 360 are for test, by other writers than most of the first 1,437)
            or "mnist" (60,000 images of 28x28 for training, 10,000 for test).
        data_dir: folder that may hold `mnist.npz`. Defaults to None: Keras' own cache or download.
        train_size: how many training images to keep, the first of a permutation drawn from `subset_seed`; the test
            images stay. Defaults to None, all of them.
        subset_seed: which images are kept. A smaller `train_size` keeps a subset of what a larger one keeps. Defaults
            to 0.
        held_out: the first so many training images are the test images, and are not trained on. Defaults to 0, the
            public test images.

    Returns:
        The image set.

    Raises:
        ValueError: for an unknown name, a set that cannot be loaded, or a `train_size` or `held_out` that is too large.
    """
    images = _LOADERS[checks.choice("dataset", name, _LOADERS)](data_dir)
    if held_out:
        check_held_out(name, images.num_train_examples, held_out)
        images = dataclasses.replace(
            images,
            train_images=images.train_images[held_out:],
            train_labels=images.train_labels[held_out:],
            test_images=images.train_images[:held_out],
            test_labels=images.train_labels[:held_out],
        )
    return images if train_size is None else subset(images, train_size, subset_seed)


def subset(images: ImageSet, train_size: int, seed: int = 0) -> ImageSet:
    """The same set with the first `train_size` training images of a permutation that depends on the seed alone."""
    kept = subset_rows(images.name, images.num_train_examples, train_size, seed)
    present = None if images.present is None else images.present[kept]
    parts = {"train_images": images.train_images[kept], "train_labels": images.train_labels[kept], "present": present}
    return dataclasses.replace(images, **parts)


def subset_rows(name: str, available: int, train_size: int, seed: int = 0) -> np.ndarray:
    """The first `train_size` of a permutation of `available` training images, int64; `name` is for the error."""
    constraint = f"must be between 1 and the {available} training images of {name}"
    checks.require(1 <= train_size <= available, "train_size", constraint, train_size)
    return keys.counter_stream(keys.derive(seed, "subset")).permutation(available)[:train_size]


def check_held_out(name: str, available: int, held_out: int) -> None:
    """Refuses to hold out all training images; `name` is for the error."""
    constraint = f"must be below the {available} training images of {name}"
    checks.require(0 <= held_out < available, "held_out", constraint, held_out)


def _digits(data_dir) -> ImageSet:
    """scikit-learn's copy of the UCI digits, in its own order."""
    from sklearn import datasets  # Takes seconds to import; only this set needs it.

    digits = datasets.load_digits()
    images, labels = digits.images.astype(np.uint8)[..., np.newaxis], digits.target.astype(np.int32)
    return ImageSet(
        name="digits",
        train_images=images[:DIGITS_TRAIN_SIZE],
        train_labels=labels[:DIGITS_TRAIN_SIZE],
        test_images=images[DIGITS_TRAIN_SIZE:],
        test_labels=labels[DIGITS_TRAIN_SIZE:],
        num_classes=10,
        pixel_range=(0.0, 16.0),
    )


def _mnist(data_dir) -> ImageSet:
    """Keras' `mnist.npz`, from `data_dir` or by Keras' own download."""
    path = None if data_dir is None else pathlib.Path(data_dir) / "mnist.npz"
    try:
        if path is not None and path.is_file():
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                train, test = (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
        else:
            import keras  # Takes seconds to import; a local file does not need it.

            train, test = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails, NumPy four types for a bad file.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            "MNIST could not be loaded: set `data_dir` to a folder that holds Keras' mnist.npz. "
            f"Received: data_dir={None if data_dir is None else str(data_dir)!r} ({reason})"
        ) from error
    try:
        for names, part in ((("x_train", "y_train"), train), (("x_test", "y_test"), test)):
            _check_arrays(names, *part, num_classes=10)
        if train[0].shape[1:] != test[0].shape[1:]:
            raise ValueError(
                f"x_train and x_test must hold images of one size, not of {train[0].shape[1:]} and {test[0].shape[1:]}"
            )
    except ValueError as error:
        raise ValueError(
            f"`data_dir` must hold MNIST as Keras has it: {error}. Received: data_dir={str(data_dir)!r}"
        ) from error
    return ImageSet(
        name="mnist",
        train_images=train[0][..., np.newaxis],
        train_labels=train[1].astype(np.int32),
        test_images=test[0][..., np.newaxis],
        test_labels=test[1].astype(np.int32),
        num_classes=10,
        pixel_range=(0.0, 255.0),
    )


def _check_arrays(names: tuple[str, str], images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError for arrays that are not gray images with their labels."""
    image_name, label_name = names
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"{image_name} must be uint8 [examples, height, width] with at least one example, not {images.dtype} "
            f"{list(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{label_name} must have one label per image, {len(images)} in all, not the shape {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iuf":
        raise ValueError(f"{label_name} must hold whole numbers, not {labels.dtype}")
    wrong = np.flatnonzero(~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels))))
    if len(wrong):
        raise ValueError(
            f"{label_name} must hold whole numbers from 0 to {num_classes - 1}, but its label {wrong[0]} is "
            f"{labels[wrong[0]]}"
        )


_LOADERS = {"digits": _digits, "mnist": _mnist}
