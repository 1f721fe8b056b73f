"""The tail index of Adam's update noise and of SGD's, at the same weights, by two estimators.

    python -m noisy_sgd.experiments.gradient_tails --flagfile=configs/gradient_tails/images.flags

The measurements are those of `studies.gradient_tails`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import image_study, toy_experiment
from noisy_sgd.figures import gradient_tails as figures
from noisy_sgd.studies import gradient_tails


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(image_study.Settings):
    """The settings of `image_study.Settings`."""

    run_dir: str = "runs/gradient_tails"


def parse(argv: Sequence[str]) -> Settings:
    """The tail index of Adam's update noise and of SGD's, at the same weights, by two estimators."""
    return image_study.parse(argv, parse, Settings, {}, smoke=image_study.SMOKE)


def main(settings: Settings) -> None:
    """Measures what is missing of the record, and draws it."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures what is missing of the record."""
    cases = gradient_tails.cases(num_seeds=settings.num_seeds, **settings.common)
    return image_study.run(settings, (lambda lines: cases,), gradient_tails.measure, gradient_tails.summarize)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws both indices at the checkpoints; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
