"""Figure 1, controlled: does accuracy fall with the batch size, and is it the noise or the clipping?

    python -m noisy_sgd.experiments.batch_size_effect --flagfile=configs/batch_size_effect/mnist.flags

SGD, noise only, clip only and DP-SGD, with learning rates chosen per arm. The measurements are those of
`studies.batch_size_effect`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, toy_experiment
from noisy_sgd.figures import batch_size_effect as figures
from noisy_sgd.studies import batch_size_effect

_HELP = {
    **laboratory.HELP,
    "noise_std": "sigma / B: standard deviation of the noise on the mean gradient",
    "l2_norm_clips": "comma-separated bounds C of the arms that clip",
    "batch_sizes": "comma-separated batch sizes; at least three",
    "equal_learning_rate": "learning rate of the runs that are not tuned",
    "noise_coefficients": "comma-separated factors of the noise's draws of this step, of the last one, and so on, such "
    "as 1,-0.9; its size stays --noise_std",
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 200,
    "num_steps": 20,
    "batch_sizes": (8, 16, 32),
    "learning_rates": (0.1, 0.4),
    "num_tuning_seeds": 1,
    "num_seeds": 2,
    "l2_norm_clips": (4.0,),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, batch_size_effect.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/batch_size_effect"

    def resolved(self) -> dict[str, Any]:
        """As recorded; records older than the option of correlated noise do not have it."""
        described = super().resolved()
        if tuple(described["noise_coefficients"]) == (1.0,):
            del described["noise_coefficients"]
        return described


def parse(argv: Sequence[str]) -> Settings:
    """Accuracy against batch size for SGD, noise only, clip only and DP-SGD, with tuned learning rates."""
    return command_line.read(argv, parse, "batch size effect", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Trains what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Trains the runs that choose the learning rates, then those that are judged."""
    return laboratory.run(settings, batch_size_effect)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy against batch size, and the slopes of all arms; returns all paths."""
    return [*figures.draw_accuracy(record, directory), *figures.draw_slopes(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
