"""Experiments on the laboratory's images: their common settings, their flags, and their recorded run.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(image_study.Settings):
    batch_size: int = 64
    run_dir: str = "runs/landscape"

settings = image_study.parse(argv, parse, Settings, {"batch_size": "B"}, smoke=image_study.SMOKE)
record = image_study.run(settings, (cases,), landscape.measure, landscape.summarize)

Tested by tests/experiments/landscape_test.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, recorded_cases
from noisy_sgd.studies.laboratory import images
from noisy_sgd.studies.laboratory import settings as names

# Seeds that choose settings; the seeds 0, 1, ... are those of the final runs.
TUNING_SEEDS = (100, 101, 102)
# What `--smoke` chooses in every study.
SMOKE = {"dataset": "digits", "num_train_examples": 300, "num_seeds": 2, "num_steps": 20, "num_processes": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, names.Images):
    """What all studies on images can be asked; a subclass adds fields."""

    network: str = "mlp"
    num_seeds: int = 10
    num_steps: int = 1_500

    def __post_init__(self):
        super().__post_init__()
        config.require_choice("network", self.network, names.NETWORKS)
        # One seed has no interval.
        config.require_at_least("num_seeds", self.num_seeds, 2)
        config.require_at_least("num_steps", self.num_steps, 1)

    @property
    def common(self) -> dict[str, Any]:
        """What all cases share: the data set that is used, the network and its training."""
        with flags.refusals():
            dataset = images.resolved(self.dataset, self.data_dir)
        return {
            "dataset": dataset,
            "network": self.network,
            "num_train_examples": self.num_train_examples,
            "num_steps": self.num_steps,
        }


def parse(
    argv: Sequence[str], parser: Callable, group: type, helps: Mapping[str, str], *, smoke: Mapping[str, Any]
) -> Any:
    """Reads the command line of a study on images.

    Args:
        argv: the command line.
        parser: the binary's `parse`, whose docstring `--help` shows.
        group: the binary's subclass of `Settings`.
        helps: of the fields that the subclass adds.
        smoke: the settings that `--smoke` chooses, as in `command_line.read`.

    Returns:
        A value of the group.
    """
    return command_line.read(argv, parser, "study on images", group, {**laboratory.HELP, **helps}, smoke)


def run(
    settings: Settings,
    stages: Sequence[recorded_cases.Stage],
    measure: Callable[..., Mapping[str, Any]],
    summarize: Callable[[Sequence[recorded_cases.Line]], Mapping[str, Any]],
) -> records.Record:
    """Measures the cases that the run directory does not hold yet; see `recorded_cases.run`.

    Args:
        settings: the settings.
        stages: from the lines of earlier stages to the cases of the next.
        measure: a module's function of a case and `data_dir`.
        summarize: from all lines to the results.
    """
    return recorded_cases.run(
        settings,
        stages,
        functools.partial(measure, data_dir=settings.data_dir),
        summarize,
        unit="measurements",
    )
