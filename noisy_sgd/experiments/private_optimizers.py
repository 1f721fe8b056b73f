"""Private optimizers at equal epsilon, at a small and at a large batch size: which closes how much of the gap?

    python -m noisy_sgd.experiments.private_optimizers --flagfile=configs/private_optimizers/mnist.flags

DP-SGD, DiceSGD, random sparsification, extrapolation, LARS and Adam. The measurements are those of
`studies.private_optimizers`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line, laboratory
from noisy_sgd.experiments.support import recorded_cases, toy_experiment
from noisy_sgd.figures import private_optimizers as figures
from noisy_sgd.studies import private_optimizers

_HELP = {
    **laboratory.IMAGES_AND_NETWORK,
    "epsilon": "epsilon of DP-SGD with Poisson sampling, at delta = 1e-5",
    "num_epochs": "passes over the training set at every batch size",
    "batch_sizes": "the small and the large batch size",
    "relative_bounds": "comma-separated bounds C over the median norm of the gradients",
    **laboratory.TUNING,
    **recorded_cases.HELP,
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 200,
    "num_epochs": 2,
    "batch_sizes": (20, 100),
    "relative_bounds": (1.0,),
    "learning_rates": (0.4,),
    "num_seeds": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings, private_optimizers.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/private_optimizers"

    def resolved(self) -> dict[str, Any]:
        """As recorded; where the images lie does not matter, but which ones they are."""
        return laboratory.resolved(super().resolved(), unread=("num_steps", "ema_decay"))


def parse(argv: Sequence[str]) -> Settings:
    """Private optimizers at equal epsilon, at a small and at a large batch size."""
    return command_line.read(argv, parse, "private optimizers", Settings, _HELP, _SMOKE)


def main(chosen: Settings) -> None:
    """Trains what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(chosen), draw)


def run(chosen: Settings) -> records.Record:
    """Trains the runs that choose the learning rates, then those that are judged."""
    stages = (
        lambda lines: private_optimizers.tuning_cases(chosen),
        lambda lines: private_optimizers.final_cases(chosen, lines),
    )
    measure = functools.partial(private_optimizers.measure, chosen)
    summarize = functools.partial(private_optimizers.summary, chosen)
    return recorded_cases.run(chosen, stages, measure, summarize, unit="runs")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracies at both batch sizes, and calibration errors; returns all paths."""
    return [*figures.draw_accuracies(record, directory), *figures.draw_calibration(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
