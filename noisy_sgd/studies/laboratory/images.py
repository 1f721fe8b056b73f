"""The images of one seed: a training set that the seed draws, examples for choosing settings, and others for judging.

    data = images.load("mnist", 3, num_train_examples=1_000, data_dir="data")
    data.train_images.shape                        # (1000, 14, 14, 1)
    images.resolved("mnist_or_digits")             # "digits" where MNIST cannot be loaded

The public test set is split into two halves, the images at even and at odd places. Settings are chosen on `chosen`, and
no final number is measured on it.
"""

import dataclasses
import functools

import numpy as np

from noisy_sgd.data import bundled, label_noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Images [n, height, width, channels], float32, and labels [n], int32."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The examples of one seed.

    Attributes:
        train: drawn by the seed, with the label noise of the seed.
        chosen: by which settings are chosen.
        judged: by which the final runs are judged.
        num_classes: number of classes.
        pixel_range: lowest and highest value of a pixel.
    """

    train: Examples
    chosen: Examples
    judged: Examples
    num_classes: int
    pixel_range: tuple[float, float]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.train.images.shape[1:]


def load(
    name: str,
    seed: int,
    *,
    num_train_examples: int,
    wrong_labels: float = 0.0,
    full_size: bool = False,
    data_dir: str | None = None,
) -> Data:
    """The images of a seed.

    Args:
        name: "mnist" or "digits".
        seed: of the training set and of its wrong labels.
        num_train_examples: examples of the training set.
        wrong_labels: fraction of the training labels that are replaced by random ones. Defaults to 0.
        full_size: whether MNIST keeps its 28x28 pixels. Defaults to False, which takes means over 2x2 pixels.
        data_dir: folder that may hold mnist.npz. Defaults to None, Keras' own cache or download.

    Raises:
        ValueError: if the images cannot be loaded, or are fewer than asked for.
    """
    found = bundled.subset(_all_images(name, data_dir), num_train_examples, seed)
    if wrong_labels:
        found = label_noise.replace(found, wrong_labels, seed)
    halved = name == "mnist" and not full_size

    def examples(pixels, labels):
        return Examples(images=_half_size(pixels) if halved else pixels.astype(np.float32), labels=labels)

    return Data(
        train=examples(found.train_images, found.train_labels),
        chosen=examples(found.test_images[::2], found.test_labels[::2]),
        judged=examples(found.test_images[1::2], found.test_labels[1::2]),
        num_classes=found.num_classes,
        pixel_range=found.pixel_range,
    )


def resolved(name: str, data_dir: str | None = None) -> str:
    """The data set that is used: "mnist_or_digits" is "mnist" where it can be loaded, and otherwise "digits".

    Raises:
        ValueError: if the images cannot be loaded.
    """
    if name != "mnist_or_digits":
        return _all_images(name, data_dir).name
    try:
        return _all_images("mnist", data_dir).name
    except ValueError:
        return "digits"


@functools.cache
def _all_images(name, data_dir):
    return bundled.load(name, data_dir)


def _half_size(pixels: np.ndarray) -> np.ndarray:
    count, height, width, channels = pixels.shape
    blocks = pixels.reshape(count, height // 2, 2, width // 2, 2, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32)
