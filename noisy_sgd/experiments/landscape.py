"""Curvature and gradient noise along training, at small and large steps and batches: the break-even point.

    python -m noisy_sgd.experiments.landscape --flagfile=configs/landscape/images.flags

The measurements are those of `studies.landscape`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import image_study, toy_experiment
from noisy_sgd.figures import landscape as figures
from noisy_sgd.studies import landscape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(image_study.Settings):
    """The settings of `image_study.Settings`."""

    run_dir: str = "runs/landscape"

    def __post_init__(self):
        super().__post_init__()
        largest = max(batch_size for batch_size, *_ in landscape.GROUPS)
        config.require_at_least("num_train_examples", self.num_train_examples, largest)


def parse(argv: Sequence[str]) -> Settings:
    """Curvature and gradient noise along training, at small and large steps and batches."""
    return image_study.parse(argv, parse, Settings, {}, smoke=image_study.SMOKE)


def main(settings: Settings) -> None:
    """Measures what is missing of the record, and draws it."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures what is missing of the record."""
    cases = landscape.cases(num_seeds=settings.num_seeds, **settings.common)
    return image_study.run(settings, (lambda lines: cases,), landscape.measure, landscape.summarize)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the quantities along training, and their ratios at the same training accuracy; returns all paths."""
    return figures.draw_along_training(record, directory) + figures.draw_ratios(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
