"""Do large steps learn sparse features? Diagonal networks with large steps first, and small ones after them.

    python -m noisy_sgd.experiments.sparse_features --flagfile=configs/sparse_features/large_steps.flags

The measurements are those of `studies.sparse_features`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import sparse_features as figures
from noisy_sgd.studies import sparse_features


def parse(argv: Sequence[str]) -> data_sets.CaseSettings:
    """Final distances to the sparse solution, by the length of a first phase with large steps."""
    return data_sets.parse_cases(
        argv,
        parse,
        60,
        num_data_sets=32,
        num_runs=5,
        num_steps=sparse_features.DEFAULT_STEPS,
        run_dir="runs/sparse_features",
    )


def main(settings: data_sets.CaseSettings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.CaseSettings) -> records.Record:
    """Measures every data set that the record does not hold yet."""
    return data_sets.run_cases(
        settings,
        sparse_features.measure,
        lambda lines: {"summary": sparse_features.summary(lines)},
        first=sparse_features.FIRST_DATA_SEED,
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the distance and the effective alpha over the length of the first phase; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
