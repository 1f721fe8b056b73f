"""Small against large batches, each with its best learning rate: at equal steps, and at equal epochs.

    python -m noisy_sgd.experiments.noise_benefit --flagfile=configs/noise_benefit/images.flags

The measurements are those of `studies.noise_benefit`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import image_study, toy_experiment
from noisy_sgd.figures import noise_benefit as figures
from noisy_sgd.studies import noise_benefit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(image_study.Settings):
    """The settings of `image_study.Settings`."""

    run_dir: str = "runs/noise_benefit"

    def __post_init__(self):
        super().__post_init__()
        # A smaller batch than the whole training set.
        smallest = min(noise_benefit.SMALL_BATCH_SIZES) + 1
        config.require_at_least("num_train_examples", self.num_train_examples, smallest)


def parse(argv: Sequence[str]) -> Settings:
    """Small against large batches, each with its best learning rate: at equal steps, and at equal epochs."""
    return image_study.parse(argv, parse, Settings, {}, smoke={**image_study.SMOKE, "num_train_examples": 64})


def main(settings: Settings) -> None:
    """Measures what is missing of the record, and draws it."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures what is missing of the record: first the tuning cases, then the final ones."""
    tuning = noise_benefit.tuning_cases(image_study.TUNING_SEEDS, **settings.common)
    stages = (lambda lines: tuning, lambda lines: noise_benefit.final_cases(lines, num_seeds=settings.num_seeds))
    return image_study.run(settings, stages, noise_benefit.measure, noise_benefit.summarize)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy and training loss against the batch size, and the tuning; returns all paths."""
    return figures.draw_batch_sizes(record, directory) + figures.draw_tuning(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
