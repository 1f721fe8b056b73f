"""Experiments on the first data sets of `regression.sparse`: their settings, their flags, and their recorded run.

settings = data_sets.parse(["noise_threshold", "--num_data_sets=2"], parser, run_dir="runs/noise_threshold")
record = data_sets.run(settings, noise_threshold.measure, lambda lines: {"best": noise_threshold.best(lines)})

Tested by tests/experiments/noise_threshold_test.py.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, toy_experiment

_HELP = {
    "num_data_sets": "data sets, with seeds from 0 up",
    "num_runs": "runs of each case on each data set",
    "num_steps": "iterations of every run",
    "run_dir": "where the run is recorded",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """How many data sets are measured, with how many runs of each case, and how many steps of each run."""

    num_data_sets: int = 12
    num_runs: int = 3
    num_steps: int = 15_000

    def __post_init__(self):
        config.require_at_least("num_data_sets", self.num_data_sets, 1)
        config.require_at_least("num_runs", self.num_runs, 1)
        config.require_at_least("num_steps", self.num_steps, 1)


def parse(argv: Sequence[str], parser: Callable, **defaults: Any) -> Settings:
    """Reads the command line of a binary, whose `parser` describes it; `defaults` are the binary's own."""
    return command_line.read(argv, parser, "data sets and runs", Settings, _HELP, **defaults)


def run(
    settings: Settings,
    measure: Callable[..., Iterable[Mapping[str, Any]]],
    summarize: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]],
) -> records.Record:
    """Measures one data set after the other, unless a finished record of that exists.

    Args:
        settings: the data sets, and how each is measured.
        measure: from data seeds, `num_runs` and `num_steps` to lines.
        summarize: from the lines of all data sets to the results.

    Returns:
        The finished record.
    """

    def measured(append, advance):
        lines = []
        for data_seed in range(settings.num_data_sets):
            for line in measure((data_seed,), num_runs=settings.num_runs, num_steps=settings.num_steps):
                append(line)
                lines.append(line)
            advance(1)
        return summarize(lines)

    return recorded_measurement.run(
        settings.run_dir, settings.resolved(), measured, total=settings.num_data_sets, unit="data sets"
    )
