"""Does noise that is correlated over steps pay? Private training at equal epsilon, with and without amplification.

    python -m noisy_sgd.experiments.correlated_training --flagfile=configs/correlated_training/mnist.flags

The measurements are those of `studies.correlated_training`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, toy_experiment
from noisy_sgd.figures import correlated_training as figures
from noisy_sgd.studies import correlated_training

_HELP = {
    **laboratory.HELP,
    "epsilons": "comma-separated epsilons, at delta = 1e-5",
    "batch_size": "B, expected under Poisson sampling",
    "num_epochs": "passes over the training set",
    "l2_norm_clip": "C, bound on the norm of every example's gradient",
    "draws": "the largest number of draws per step of the correlated noise",
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 200,
    "num_epochs": 2,
    "batch_size": 50,
    "draws": 3,
    "learning_rates": (0.4,),
    "num_seeds": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, correlated_training.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/correlated_training"


def parse(argv: Sequence[str]) -> Settings:
    """Correlated noise against independent noise at equal epsilon, with and without amplification by sampling."""
    return command_line.read(argv, parse, "correlated training", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Trains what is not recorded yet, prints the accuracies, and draws the record."""
    record = run(settings)
    for line in record.results["table"]:
        print(
            f"epsilon {line['epsilon']:g}, {line['arm'].replace('_', ' ')}: {line['accuracy']:.2f} % "
            f"[{line['low']:.2f}, {line['high']:.2f}], {line['seeds']} seeds"
        )
    toy_experiment.draw(record, draw)


def run(settings: Settings) -> records.Record:
    """Trains the runs that choose the learning rates, then those that are judged."""
    return laboratory.run(settings, correlated_training)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the accuracies at every epsilon; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
