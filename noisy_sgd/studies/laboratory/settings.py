"""What the studies on images are told: the data, the network and the loss.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Setting(settings.Network):
        batch_sizes: tuple[int, ...] = (16, 64, 256)

Importing this module does not import TensorFlow, so that a command line is read at once.

Covered by tests/studies/batch_size_effect_test.py.
"""

import dataclasses

from noisy_sgd import checks

DATASETS = ("mnist", "digits", "mnist_or_digits")
NETWORKS = ("mlp", "cnn", "nf_resnet", "wide_resnet", "vision_transformer")
CROSS_ENTROPY, HINGE = LOSSES = ("cross_entropy", "hinge")
ARMS = ("plain", "noise", "clip", "noise_clip")
FIRST_TUNING_SEED = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a study.

    Attributes:
        dataset: one of `DATASETS`; "mnist_or_digits" is MNIST where it can be loaded.
        data_dir: folder that may hold mnist.npz. Defaults to None, Keras' own cache or download.
        num_train_examples: of each seed's training set.
    """

    dataset: str = "mnist_or_digits"
    data_dir: str | None = None
    num_train_examples: int = 1_000

    def __post_init__(self):
        checks.choice("dataset", self.dataset, DATASETS)
        checks.count("num_train_examples", self.num_train_examples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Images):
    """The images, the network and the loss of a study.

    Attributes:
        wrong_labels: fraction of the training labels that are replaced by random ones.
        network: one of `NETWORKS`.
        loss: one of `LOSSES`.
    """

    wrong_labels: float = 0.0
    network: str = "mlp"
    loss: str = CROSS_ENTROPY

    def __post_init__(self):
        super().__post_init__()
        checks.require(0 <= self.wrong_labels <= 1, "wrong_labels", "must lie between 0 and 1", self.wrong_labels)
        checks.choice("network", self.network, NETWORKS)
        checks.choice("loss", self.loss, LOSSES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned(Images):
    """The images of a study that chooses learning rates, and the seeds for that and for the final runs.

    Attributes:
        learning_rates: the grid.
        num_tuning_seeds: seeds by which learning rates are chosen.
        num_seeds: seeds of the final runs, from 0 up; at least two, because one has no interval.
    """

    learning_rates: tuple[float, ...] = ()
    num_tuning_seeds: int = 2
    num_seeds: int = 10

    def __post_init__(self):
        super().__post_init__()
        distinct = len(set(self.learning_rates)) == len(self.learning_rates) > 0 and min(self.learning_rates) > 0
        checks.require(distinct, "learning_rates", "must list distinct numbers above 0", self.learning_rates)
        checks.count("num_tuning_seeds", self.num_tuning_seeds)
        checks.count("num_seeds", self.num_seeds, least=2)

    @property
    def tuning_seeds(self) -> range:
        """Apart from the seeds of the final runs."""
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.num_tuning_seeds)
