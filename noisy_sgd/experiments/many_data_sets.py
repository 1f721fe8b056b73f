"""Figures 3, 4 and 6 of the paper on many data sets, none of them picked.

    python -m noisy_sgd.experiments.many_data_sets --flagfile=configs/many_data_sets/figures.flags

The measurements are those of `studies.many_data_sets`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import many_data_sets as figures
from noisy_sgd.studies import many_data_sets


def parse(argv: Sequence[str]) -> data_sets.CaseSettings:
    """Figures 3, 4 and 6 on many data sets."""
    return data_sets.parse_cases(argv, parse, 400, num_steps=200_000, run_dir="runs/many_data_sets")


def main(settings: data_sets.CaseSettings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.CaseSettings) -> records.Record:
    """Measures every figure on every data set that the record does not hold yet."""
    return data_sets.run_cases(
        settings,
        many_data_sets.measure,
        lambda lines: {"trends": many_data_sets.summary(lines)},
        variants=many_data_sets.CASES,
        first=many_data_sets.FIRST_DATA_SEED,
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the three figures' values on every data set; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
