"""Gradient descent, SGD and Noisy-SGD on diagonal linear networks of depth 2, 3 and 4: beyond the paper.

    python -m noisy_sgd.experiments.deep_diagonal --flagfile=configs/deep_diagonal/depths.flags

The measurements are those of `studies.deep_diagonal`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import deep_diagonal as figures
from noisy_sgd.studies import deep_diagonal


def parse(argv: Sequence[str]) -> data_sets.Settings:
    """Diagonal networks of depth 2, 3 and 4 under gradient descent, SGD and Noisy-SGD."""
    return data_sets.parse(argv, parse, num_steps=20_000, run_dir="runs/deep_diagonal")


def main(settings: data_sets.Settings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.Settings) -> records.Record:
    """Measures every data set, unless a finished record of that exists."""
    return data_sets.run(settings, deep_diagonal.measure, lambda lines: {"order": deep_diagonal.order(lines)})


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws distances and effective alphas, one panel per depth; returns all paths."""
    return figures.draw_distances(record, directory) + figures.draw_alpha(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
