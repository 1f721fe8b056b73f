"""In which directions SGD with a moderate learning rate leaves an error, and gradient descent: least squares.

    python -m noisy_sgd.experiments.direction_matters --flagfile=configs/direction_matters/two_phases.flags

The measurements are those of `studies.direction_matters`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import direction_matters as figures
from noisy_sgd.studies import direction_matters


def parse(argv: Sequence[str]) -> data_sets.CaseSettings:
    """Directions of the remaining error under SGD and gradient descent, with a moderate and then a small rate."""
    return data_sets.parse_cases(
        argv, parse, 20, num_data_sets=32, num_runs=10, num_steps=400, run_dir="runs/direction_matters"
    )


def main(settings: data_sets.CaseSettings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.CaseSettings) -> records.Record:
    """Measures every data set that the record does not hold yet."""
    return data_sets.run_cases(
        settings,
        direction_matters.measure,
        lambda lines: {"two_samples": direction_matters.two_samples(), "order": direction_matters.order(lines)},
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the quotients over the steps and at the end; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
