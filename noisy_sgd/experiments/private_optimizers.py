"""Private optimizers at equal epsilon, at a small and at a large batch size: which closes how much of the gap?

    python -m noisy_sgd.experiments.private_optimizers --flagfile=configs/private_optimizers/mnist.flags

DP-SGD, DiceSGD, random sparsification, extrapolation, LARS, Adam and DP-SGLD. The measurements are those of
`studies.private_optimizers`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, toy_experiment
from noisy_sgd.figures import private_optimizers as figures
from noisy_sgd.studies import private_optimizers

_HELP = {
    **laboratory.HELP,
    "epsilon": "epsilon of DP-SGD with Poisson sampling, at delta = 1e-5",
    "num_epochs": "passes over the training set at every batch size",
    "batch_sizes": "the small and the large batch size",
    "relative_bounds": "comma-separated bounds C over the median norm of the gradients",
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
class Settings(laboratory.Settings, private_optimizers.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/private_optimizers"

    def resolved(self) -> dict[str, Any]:
        """As recorded, with the optimizers, so that the record of fewer ones is refused."""
        return {**super().resolved(), "optimizers": list(private_optimizers.OPTIMIZERS)}


def parse(argv: Sequence[str]) -> Settings:
    """Private optimizers at equal epsilon, at a small and at a large batch size."""
    return command_line.read(argv, parse, "private optimizers", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Trains what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Trains the runs that choose the learning rates, then those that are judged."""
    return laboratory.run(settings, private_optimizers)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracies at both batch sizes, calibration errors, and reliability diagrams; returns all paths."""
    drawn = (figures.draw_accuracies, figures.draw_calibration, figures.draw_reliability)
    return [path for draw_one in drawn for path in draw_one(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
