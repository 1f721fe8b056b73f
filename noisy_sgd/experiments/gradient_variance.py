"""The variance of mini-batch gradients against the batch size, over the steps: exact.

    python -m noisy_sgd.experiments.gradient_variance --flagfile=configs/gradient_variance/batch_sizes.flags

The measurements are those of `studies.gradient_variance`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import gradient_variance as figures
from noisy_sgd.studies import gradient_variance


def parse(argv: Sequence[str]) -> data_sets.CaseSettings:
    """The variance of mini-batch gradients against the batch size, for least squares and a two-layer linear network."""
    return data_sets.parse_cases(
        argv, parse, 1, num_data_sets=16, num_runs=20_000, num_steps=2, run_dir="runs/gradient_variance"
    )


def main(settings: data_sets.CaseSettings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.CaseSettings) -> records.Record:
    """Measures every data set that the record does not hold yet."""
    return data_sets.run_cases(
        settings,
        gradient_variance.measure,
        lambda lines: {
            "batch_sizes": list(gradient_variance.BATCH_SIZES),
            "summary": gradient_variance.summary(lines),
        },
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws variance times batch size over the batch size, one panel per model; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
