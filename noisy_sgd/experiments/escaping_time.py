"""How long SGD and Adam stay in a sharp well under noise with heavy tails, and under Gaussian noise.

    python -m noisy_sgd.experiments.escaping_time --flagfile=configs/escaping_time/two_wells.flags

The measurements are those of `studies.escaping_time`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import escaping_time as figures
from noisy_sgd.studies import escaping_time


def parse(argv: Sequence[str]) -> data_sets.CaseSettings:
    """Escaping times of SGD and Adam from a sharp well, under noise with heavy tails and under Gaussian noise."""
    return data_sets.parse_cases(
        argv, parse, 200, num_data_sets=16, num_runs=200, num_steps=10_000, run_dir="runs/escaping_time"
    )


def main(settings: data_sets.CaseSettings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.CaseSettings) -> records.Record:
    """Measures every data set that the record does not hold yet."""
    return data_sets.run_cases(
        settings,
        escaping_time.measure,
        lambda lines: {"summary": escaping_time.summary(lines)},
        variants=[{"tail": tail} for tail in escaping_time.TAILS],
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws escaping times over SGD's, one panel per kind of noise; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
