"""Wrong training labels, which only an over-fitting network fits; small clean image sets have none.

A stated fraction of the training labels is replaced by classes drawn uniformly, the right one among them. The test
labels stay.

    noisy = label_noise.replace(bundled.load("digits", train_size=1024), fraction=0.4)
"""

import dataclasses

from noisy_sgd import checks, keys
from noisy_sgd.data import bundled


def replace(images: bundled.ImageSet, fraction: float, seed: int = 0) -> bundled.ImageSet:
    """The same set with a fraction of its training labels replaced at random.

    Args:
        images: the image set.
        fraction: of the training labels, in [0, 1]; rounded down to whole labels.
        seed: which labels are replaced, and by what. Defaults to 0.

    Returns:
        The image set with other training labels.

    Raises:
        ValueError: for a fraction outside [0, 1], or images that are not in memory.
    """
    if not isinstance(images, bundled.ImageSet):
        raise ValueError(
            f"`label_noise` can replace only labels in memory; leave it out. Received: label_noise={fraction} with "
            f"dataset={images.name}"
        )
    checks.require(0 <= fraction <= 1, "label_noise", "must lie between 0 and 1", fraction)
    count = len(images.train_labels)
    generator = keys.counter_stream(keys.derive(seed, "synthetic data"))
    replaced = generator.permutation(count)[: int(fraction * count)]
    labels = images.train_labels.copy()
    labels[replaced] = generator.integers(0, images.num_classes, len(replaced), dtype=labels.dtype)
    return dataclasses.replace(images, train_labels=labels)
