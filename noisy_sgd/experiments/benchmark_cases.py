"""What the benchmarks train on: random images of a workload's shape, and one setting of each algorithm."""

import numpy as np

from noisy_sgd import config
from noisy_sgd.data import bundled

SHAPES = {"mlp": (28, 28, 1), "mnist_cnn": (28, 28, 1), "wrn_16_4": (32, 32, 3), "nf_resnet_small": (32, 32, 3)}
L2_NORM_CLIP, NOISE_MULTIPLIER = 1.0, 1.0


def images(workload: str, count: int) -> bundled.ImageSet:
    """`count` random training images of the workload's shape, with random labels of ten classes, and no test images."""
    generator = np.random.default_rng(0)
    made = generator.integers(0, 256, (count, *SHAPES[workload]), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.int32)
    return bundled.ImageSet(
        name="random",
        train_images=made,
        train_labels=labels,
        test_images=made[:0],
        test_labels=labels[:0],
        num_classes=10,
        pixel_range=(0.0, 255.0),
    )


def algorithm(name: str, batch_size: int) -> config.Algorithm:
    """The configuration that is timed."""
    options = {} if name == "sgd" else {"noise_multiplier": NOISE_MULTIPLIER}
    if name == "dp_sgd":
        options["l2_norm_clip"] = L2_NORM_CLIP
    return config.Algorithm(algorithm=name, batch_size=batch_size, learning_rate=0.01, **options)
