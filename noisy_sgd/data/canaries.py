"""Canaries: examples that are easy to find in a trained model, added to an image set for an audit.

A canary is an image of random black and white pixels with a random label. No other example supports its label, so the
model fits it only if it is in the data.

    images = canaries.add(bundled.load("digits", train_size=100), num_canaries=1000, seed=0)    # the canaries come last
    run_images = canaries.included(images, coins)          # one run's data: canary i takes part where coins[i] is True
"""

import dataclasses

import numpy as np

from noisy_sgd import checks, keys
from noisy_sgd.data import bundled


def add(images: bundled.ImageSet, num_canaries: int, seed: int = 0) -> bundled.ImageSet:
    """The image set with canaries after its training images.

    Args:
        images: the image set.
        num_canaries: how many to add.
        seed: of their pixels and labels; whoever audits knows them. Defaults to 0.
    """
    num_canaries = checks.count("num_canaries", num_canaries)
    generator = keys.counter_stream(keys.derive(seed, "synthetic data"))
    low, high = images.pixel_range
    white = generator.random((num_canaries, *images.image_shape)) < 0.5
    labels = generator.integers(0, images.num_classes, num_canaries, dtype=images.train_labels.dtype)
    return dataclasses.replace(
        images,
        train_images=np.concatenate([images.train_images, np.where(white, high, low).astype(np.uint8)]),
        train_labels=np.concatenate([images.train_labels, labels]),
    )


def included(images: bundled.ImageSet, coins: np.ndarray) -> bundled.ImageSet:
    """The data of one run: a canary whose coin is False is missing, and its pixels are replaced by black ones.

    Args:
        images: from `add`.
        coins: bool [num_canaries], for the last training examples.
    """
    present = np.ones(images.num_train_examples, bool)
    present[images.num_train_examples - len(coins) :] = coins
    kept = np.where(present[:, None, None, None], images.train_images, np.uint8(images.pixel_range[0]))
    labels = np.where(present, images.train_labels, 0).astype(images.train_labels.dtype)
    return dataclasses.replace(images, train_images=kept, train_labels=labels, present=present)
