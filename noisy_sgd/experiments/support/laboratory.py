"""What the experiments on the laboratory's images share: settings of the record, flags of the data, and the run.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, pruning.Setting):
    run_dir: str = "runs/pruning"

record = laboratory.run(settings, pruning)

A study is a module with `stages(setting)`, `measure(setting, case)` and `summary(setting, lines)`. `HELP` explains the
fields that several settings have.

Tested by tests/experiments/clipping_or_noise_test.py and pruning_test.py.
"""

import dataclasses
import functools
import types
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_cases
from noisy_sgd.studies.laboratory import images
from noisy_sgd.studies.laboratory import settings as names

HELP = {
    "dataset": command_line.one_of("the images; mnist_or_digits: MNIST where it can be loaded", names.DATASETS),
    "data_dir": "folder that may hold mnist.npz; by default Keras' own cache or download",
    "num_train_examples": "training examples, drawn anew by every seed",
    "wrong_labels": "fraction of the training labels that are replaced by random ones",
    "network": command_line.one_of("the network", names.NETWORKS),
    "loss": command_line.one_of("the loss", names.LOSSES),
    "num_steps": "steps of every run",
    "ema_decay": "decay of the weights' average, in (0, 1)",
    "learning_rates": "comma-separated grid of learning rates",
    "num_tuning_seeds": "seeds by which settings are chosen, from 1000 up",
    "num_seeds": "seeds of the final runs, from 0 up",
    **recorded_cases.HELP,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings):
    """The base of the settings; the study's `Setting` comes after it, so that both check their values."""

    @property
    def unread(self) -> dict[str, str]:
        """The flags that mean nothing to this measurement, each with the reason."""
        return {"data_dir": "is read only for MNIST"} if self.dataset == "digits" else {}

    def resolved(self) -> dict[str, Any]:
        """As recorded; where the images lie does not matter, but which ones they are."""
        described = super().resolved()
        described["dataset"] = images.resolved(described["dataset"], described.pop("data_dir"))
        return described


def run(settings: Settings, study: types.ModuleType) -> records.Record:
    """Measures the cases of all stages that are not recorded yet."""
    return recorded_cases.run(
        settings,
        study.stages(settings),
        functools.partial(study.measure, settings),
        functools.partial(study.summary, settings),
        unit="measurements",
    )
