"""What the experiments on the laboratory's images share: settings of the record, flags of the data, and the run.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(pruning.Setting, laboratory.Settings):
    run_dir: str = "runs/pruning"

record = laboratory.run(settings, pruning)

A study is a module with `stages(setting)`, `measure(setting, case)` and `summary(setting, lines)`; its `Setting` has
the fields that `HELP` explains.

Tested by tests/experiments/clipping_or_noise_test.py and pruning_test.py.
"""

import dataclasses
import functools
import types
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_cases, toy_experiment
from noisy_sgd.studies.laboratory import images
from noisy_sgd.studies.laboratory import settings as names

HELP = {
    "dataset": command_line.one_of("the images; mnist_or_digits: MNIST where it can be loaded", names.DATASETS),
    "data_dir": "folder that may hold mnist.npz; by default Keras' own cache or download",
    "num_train_examples": "training examples, drawn anew by every seed",
    "num_steps": "steps of every run",
    "learning_rates": "comma-separated grid of learning rates",
    "num_tuning_seeds": "seeds by which learning rates are chosen, from 1000 up",
    "num_seeds": "seeds of the final runs, from 0 up",
    **recorded_cases.HELP,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings):
    """The base of the settings; the study's `Setting` comes before it."""

    def __post_init__(self):
        super().__post_init__()
        config.require_choice("dataset", self.dataset, names.DATASETS)
        for name in ("num_train_examples", "num_steps", "num_tuning_seeds", "num_seeds", "batch_size"):
            config.require_at_least(name, getattr(self, name), 1)
        enough = self.batch_size <= self.num_train_examples
        config.require(enough, "batch_size", "must be at most `--num_train_examples`", self.batch_size, "lower it")
        config.require_distinct("learning_rates", self.learning_rates)
        for rate in self.learning_rates:
            toy_experiment.require_positive("learning_rates", rate)

    def resolved(self) -> dict[str, Any]:
        """As recorded; where the images lie does not matter, but which ones they are."""
        described = super().resolved()
        return {**described, "dataset": images.resolved(described["dataset"], described.pop("data_dir"))}


def run(settings: Settings, study: types.ModuleType) -> records.Record:
    """Measures the cases of all stages that are not recorded yet."""
    return recorded_cases.run(
        settings,
        study.stages(settings),
        functools.partial(study.measure, settings),
        functools.partial(study.summary, settings),
        unit="measurements",
    )
