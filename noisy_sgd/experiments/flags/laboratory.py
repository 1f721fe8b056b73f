"""The flags that the experiments on small images share, and what their records say of the images.

_HELP = {**laboratory.IMAGES_AND_NETWORK, "batch_sizes": "...", **laboratory.TUNING, **recorded_cases.HELP}

Tested by tests/experiments/batch_size_effect_test.py and tests/experiments/private_optimizers_test.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from noisy_sgd.experiments.flags import command_line
from noisy_sgd.studies.laboratory import images, settings

IMAGES_AND_NETWORK = {
    "dataset": command_line.one_of("the images; mnist_or_digits: MNIST where it can be loaded", settings.DATASETS),
    "data_dir": "folder that may hold mnist.npz; by default Keras' own cache or download",
    "num_train_examples": "training examples, drawn anew by every seed",
    "wrong_labels": "fraction of the training labels that are replaced by random ones",
    "network": command_line.one_of("the network", settings.NETWORKS),
    "loss": command_line.one_of("the loss", settings.LOSSES),
}
STEPS_AND_AVERAGE = {
    "num_steps": "steps of every run",
    "ema_decay": "decay of the weights' average, in (0, 1)",
}
TUNING = {
    "learning_rates": "comma-separated grid of learning rates",
    "num_tuning_seeds": "seeds by which learning rates are chosen",
    "num_seeds": "seeds of the final runs",
}


def resolved(described: Mapping[str, Any], unread: Sequence[str] = ()) -> dict[str, Any]:
    """The settings as a record holds them: where the images lie does not matter, but which ones they are.

    Args:
        described: all settings.
        unread: the names of those that this experiment does not read. Defaults to none.
    """
    kept = {name: value for name, value in described.items() if name not in unread}
    name = images.resolved(kept["dataset"], kept.pop("data_dir"))
    return {**kept, "dataset": name}
