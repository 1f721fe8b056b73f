"""The best learning rate of DP-SGD, DP-SignSGD and DP-Adam against the noise multiplier.

    python -m noisy_sgd.experiments.private_step_sizes --flagfile=configs/private_step_sizes/images.flags

The measurements are those of `studies.private_step_sizes`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import image_study, toy_experiment
from noisy_sgd.figures import private_step_sizes as figures
from noisy_sgd.studies import private_step_sizes

_HELP = {"noise_doublings": "the noise multiplier is 1 and the next so many powers of 2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(image_study.Settings):
    """The settings of `image_study.Settings`, with fewer steps, because there are a thousand runs."""

    num_steps: int = 500
    noise_doublings: int = 3
    run_dir: str = "runs/private_step_sizes"

    def __post_init__(self):
        super().__post_init__()
        config.require_at_least("noise_doublings", self.noise_doublings, 1)


def parse(argv: Sequence[str]) -> Settings:
    """The best learning rate of DP-SGD, DP-SignSGD and DP-Adam against the noise multiplier."""
    return image_study.parse(argv, parse, Settings, _HELP, smoke={**image_study.SMOKE, "noise_doublings": 1})


def main(settings: Settings) -> None:
    """Measures what is missing of the record, and draws it."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures what is missing of the record."""
    cases = private_step_sizes.cases(
        num_seeds=settings.num_seeds, noise_doublings=settings.noise_doublings, **settings.common
    )
    return image_study.run(settings, (lambda lines: cases,), private_step_sizes.measure, private_step_sizes.summarize)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy against the learning rate, and the best learning rate against the noise; returns all paths."""
    return figures.draw_accuracies(record, directory) + figures.draw_best(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
