"""Figure 1, controlled: does accuracy fall with the batch size, and is it the noise or the clipping?

    python -m noisy_sgd.experiments.batch_size_effect --flagfile=configs/batch_size_effect/mnist.flags

SGD, noise only, clip only and DP-SGD, with learning rates chosen per arm. The measurements are those of
`studies.batch_size_effect`.
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
from noisy_sgd.figures import batch_size_effect as figures
from noisy_sgd.studies import batch_size_effect

_HELP = {
    **laboratory.IMAGES_AND_NETWORK,
    **laboratory.STEPS_AND_AVERAGE,
    "noise_std": "sigma / B: standard deviation of the noise on the mean gradient",
    "l2_norm_clips": "comma-separated bounds C of the arms that clip",
    "batch_sizes": "comma-separated batch sizes; at least three",
    "equal_learning_rate": "learning rate of the runs that are not tuned",
    **laboratory.TUNING,
    **recorded_cases.HELP,
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
class Settings(recorded_cases.Settings, batch_size_effect.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/batch_size_effect"

    def resolved(self) -> dict[str, Any]:
        """As recorded; where the images lie does not matter, but which ones they are."""
        return laboratory.resolved(super().resolved())


def parse(argv: Sequence[str]) -> Settings:
    """Accuracy against batch size for SGD, noise only, clip only and DP-SGD, with tuned learning rates."""
    return command_line.read(argv, parse, "batch size effect", Settings, _HELP, _SMOKE)


def main(chosen: Settings) -> None:
    """Trains what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(chosen), draw)


def run(chosen: Settings) -> records.Record:
    """Trains the runs that choose the learning rates, then those that are judged."""
    stages = (
        lambda lines: batch_size_effect.tuning_cases(chosen),
        lambda lines: batch_size_effect.final_cases(chosen, lines),
    )
    return recorded_cases.run(
        chosen,
        stages,
        functools.partial(batch_size_effect.measure, chosen),
        functools.partial(batch_size_effect.summary, chosen),
        unit="runs",
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy against batch size, and the slopes of all arms; returns all paths."""
    return [*figures.draw_accuracy(record, directory), *figures.draw_slopes(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
