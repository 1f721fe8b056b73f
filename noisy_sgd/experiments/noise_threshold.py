"""Where noise helps, where it hurts and where runs diverge, over step sizes and noise scales: beyond the paper.

    python -m noisy_sgd.experiments.noise_threshold --flagfile=configs/noise_threshold/map.flags

The measurements are those of `studies.noise_threshold`.
"""

import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import data_sets, toy_experiment
from noisy_sgd.figures import noise_threshold as figures
from noisy_sgd.studies import noise_threshold


def parse(argv: Sequence[str]) -> data_sets.Settings:
    """Where noise helps, hurts and diverges, over step sizes and noise scales."""
    return data_sets.parse(argv, parse, run_dir="runs/noise_threshold")


def main(settings: data_sets.Settings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: data_sets.Settings) -> records.Record:
    """Measures every data set, unless a finished record of that exists."""
    return data_sets.run(
        settings,
        noise_threshold.measure,
        lambda lines: {"gains": noise_threshold.gains(lines), "best": noise_threshold.best(lines)},
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the map of distances, the best noise scales, and the two terms; returns all paths."""
    return [
        *figures.draw_map(record, directory),
        *figures.draw_best(record, directory),
        *figures.draw_terms(record, directory),
    ]


if __name__ == "__main__":
    flags.run(parse, main)
