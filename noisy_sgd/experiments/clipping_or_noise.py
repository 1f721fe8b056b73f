"""Is it the clipping or the noise that costs DP-SGD accuracy? Four arms, and runs that switch between them.

    python -m noisy_sgd.experiments.clipping_or_noise --flagfile=configs/clipping_or_noise/mnist.flags

The measurements are those of `studies.clipping_or_noise`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, toy_experiment
from noisy_sgd.figures import clipping_or_noise as figures
from noisy_sgd.studies import clipping_or_noise

_HELP = {
    **laboratory.HELP,
    "width": "units of the hidden layer",
    "other_widths": "comma-separated widths that the arms are compared at too",
    "batch_size": "batch size",
    "relative_noise": "sigma / B: standard deviation of the noise on the mean gradient, in units of C",
    "relative_clips": "comma-separated bounds C, in units of the median gradient norm at the initialization",
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 100,
    "width": 8,
    "other_widths": (16,),
    "batch_size": 10,
    "num_steps": 16,
    "learning_rates": (0.05, 0.2),
    "num_tuning_seeds": 1,
    "num_seeds": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, clipping_or_noise.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/clipping_or_noise"

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_steps", "batch_size"):
            config.require_at_least(name, getattr(self, name), 1)
        enough = self.batch_size <= self.num_train_examples
        config.require(enough, "batch_size", "must be at most `--num_train_examples`", self.batch_size, "lower it")
        for name in ("relative_noise", "relative_clips"):
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                toy_experiment.require_positive(name, one)
        config.require_distinct("relative_clips", self.relative_clips)
        config.require_distinct("other_widths", (self.width, *self.other_widths))
        for width in (self.width, *self.other_widths):
            config.require_at_least("width", width, 1)
        within = 0 < self.ema_decay < 1
        config.require(within, "ema_decay", "must lie between 0 and 1", self.ema_decay, "0.98 averages 50 steps")


def parse(argv: Sequence[str]) -> Settings:
    """SGD, noise only, clip only and DP-SGD, with tuned and with equal learning rates, and switches between them."""
    return command_line.read(argv, parse, "clipping or noise", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Measures what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures the norms, the runs that choose the learning rates, and those that are judged."""
    return laboratory.run(settings, clipping_or_noise)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the arms, the directions, the switches, the lines and the widths; returns all paths."""
    return [
        *figures.draw_accuracy(record, directory),
        *figures.draw_directions(record, directory),
        *figures.draw_switches(record, directory),
        *figures.draw_lines(record, directory),
    ]


if __name__ == "__main__":
    flags.run(parse, main)
