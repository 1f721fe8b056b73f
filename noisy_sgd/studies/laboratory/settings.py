"""What every study on images is told: the data, the network, the loss, and the length of a run.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Setting(settings.Setting):
        batch_sizes: tuple[int, ...] = (16, 64, 256)

Importing this module does not import TensorFlow, so that a command line is read at once.

Covered by tests/studies/batch_size_effect_test.py.
"""

import dataclasses

from noisy_sgd import checks

DATASETS = ("mnist", "digits", "mnist_or_digits")
NETWORKS = ("mlp", "cnn", "nf_resnet", "wide_resnet", "vision_transformer")
CROSS_ENTROPY, HINGE = LOSSES = ("cross_entropy", "hinge")
PLAIN, NOISE, CLIP, NOISE_CLIP = ARMS = ("plain", "noise", "clip", "noise_clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The base of a study's settings.

    Attributes:
        dataset: one of `DATASETS`; "mnist_or_digits" is MNIST where it can be loaded.
        data_dir: folder that may hold mnist.npz. Defaults to None, Keras' own cache or download.
        num_train_examples: of each seed's training set.
        wrong_labels: fraction of the training labels that are replaced by random ones.
        network: one of `NETWORKS`.
        loss: one of `LOSSES`.
        num_steps: of every run.
        ema_decay: of the weights' average.
    """

    dataset: str = "mnist_or_digits"
    data_dir: str | None = None
    num_train_examples: int = 1_000
    wrong_labels: float = 0.0
    network: str = "mlp"
    loss: str = CROSS_ENTROPY
    num_steps: int = 1_500
    ema_decay: float = 0.98

    def __post_init__(self):
        checks.choice("dataset", self.dataset, DATASETS)
        checks.choice("network", self.network, NETWORKS)
        checks.choice("loss", self.loss, LOSSES)
        checks.count("num_train_examples", self.num_train_examples)
        checks.count("num_steps", self.num_steps)
        checks.require(0 <= self.wrong_labels <= 1, "wrong_labels", "must lie between 0 and 1", self.wrong_labels)
        checks.require(0 < self.ema_decay < 1, "ema_decay", "must lie between 0 and 1", self.ema_decay)
