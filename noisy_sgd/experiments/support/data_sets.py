"""Experiments on several data sets of one family: their settings, their flags, and their recorded run.

settings = data_sets.parse(["noise_threshold", "--num_data_sets=2"], parser, run_dir="runs/noise_threshold")
record = data_sets.run(settings, noise_threshold.measure, lambda lines: {"best": noise_threshold.best(lines)})
record = data_sets.run_cases(settings, sparse_features.measure, summarize)      # one line per data set, resumable

Tested by tests/experiments/noise_threshold_test.py.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_cases, recorded_measurement, toy_experiment

_HELP = {
    "num_data_sets": "data sets, with consecutive seeds",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseSettings(recorded_cases.Settings, Settings):
    """Settings of `run_cases`: the data sets, and the number of processes."""


def parse_cases(argv: Sequence[str], parser: Callable, smoke_steps: int, **defaults: Any) -> CaseSettings:
    """As `parse`, for `run_cases`; --smoke takes two data sets, two runs and this number of steps."""
    helps = {**_HELP, **recorded_cases.HELP}
    smoke = {"num_data_sets": 2, "num_runs": 2, "num_steps": smoke_steps}
    return command_line.read(argv, parser, "data sets and runs", CaseSettings, helps, smoke=smoke, **defaults)


def run_cases(
    settings: CaseSettings,
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    summarize: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
    *,
    variants: Sequence[Mapping[str, Any]] = ({},),
    first: int = 0,
) -> records.Record:
    """Measures every data set in every variant, by one line each; an interrupted measurement goes on where it stopped.

    Args:
        settings: the data sets, and how each is measured.
        measure: from a case, with `data_seed`, `num_runs`, `num_steps` and what a variant adds, to a line. It is a
            function of a module.
        summarize: from all lines to the results.
        variants: what the cases of one data set differ in. Defaults to one case per data set.
        first: the seed of the first data set. Defaults to 0.

    Returns:
        The finished record.
    """
    sizes = {"num_runs": settings.num_runs, "num_steps": settings.num_steps}
    cases = [
        {"data_seed": data_seed, **variant, **sizes}
        for data_seed in range(first, first + settings.num_data_sets)
        for variant in variants
    ]
    return recorded_cases.run(
        settings,
        (lambda lines: cases,),
        measure,
        summarize,
        unit="measurements",
        privacy=recorded_measurement.PRIVACY,
    )
