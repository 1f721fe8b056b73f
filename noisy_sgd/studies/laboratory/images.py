"""The images of one seed: a training set that the seed draws, examples for choosing settings, and others for judging.

    data = images.load("mnist", 3, num_train_examples=1_000, data_dir="data")
    data.train_images.shape                        # (1000, 14, 14, 1)
    images.of(setting, 3)                          # likewise, as a study's setting asks
    images.resolved("mnist_or_digits")             # "digits" where MNIST cannot be loaded

The public test set is split into two halves, the images at even and at odd places. Settings are chosen on `chosen`, and
no final number is measured on it.
"""

import dataclasses
import functools

import numpy as np

from noisy_sgd.data import bundled, label_noise
from noisy_sgd.studies.laboratory import settings


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


# Every arm of a study meets the same seeds again.
@functools.lru_cache(maxsize=32)
def of(setting: settings.Images, seed: int, *, full_size: bool = False) -> Data:
    """The images of a seed that a study's setting asks for.

    Args:
        setting: of the study; one without `wrong_labels` has right labels.
        seed: that of `load`.
        full_size: that of `load`.
    """
    return load(
        resolved(setting.dataset, setting.data_dir),
        seed,
        num_train_examples=setting.num_train_examples,
        wrong_labels=getattr(setting, "wrong_labels", 0.0),
        full_size=full_size,
        data_dir=setting.data_dir,
    )


def others(
    name: str,
    seed: int,
    *,
    num_train_examples: int,
    num_examples: int,
    num_classes: int,
    data_dir: str | None = None,
) -> Examples:
    """Training images that are not in the training set of the seed, of the first classes only; MNIST in 14x14 pixels.

    They stand for public data of another kind.

    Args:
        name: "mnist" or "digits".
        seed: that of `load`.
        num_train_examples: that of `load`.
        num_examples: how many, or all that there are.
        num_classes: the labels 0 to `num_classes` - 1.
        data_dir: folder that may hold mnist.npz. Defaults to None, Keras' own cache or download.
    """
    found = _all_images(name, data_dir)
    rows = bundled.subset_rows(name, found.num_train_examples, found.num_train_examples, seed)[num_train_examples:]
    rows = rows[found.train_labels[rows] < num_classes][:num_examples]
    pixels = found.train_images[rows]
    pixels = _half_size(pixels) if name == "mnist" else pixels.astype(np.float32)
    return Examples(images=pixels, labels=found.train_labels[rows])


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
