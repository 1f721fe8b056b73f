"""TAN's search: cheap runs with small batches choose the settings of a private run, and write its flagfile.

    python -m noisy_sgd.experiments.tan_search --flagfile=configs/tan_search/digits.flags
    python -m noisy_sgd.experiments.train --flagfile=runs/tan_search/digits/train.flags

The measurements are those of `studies.tan_search`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import files, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import endings, laboratory, toy_experiment
from noisy_sgd.figures import tan_search as figures
from noisy_sgd.studies import tan_search

_HELP = {
    **laboratory.HELP,
    "hidden": "units of the hidden layer of the perceptron",
    "batch_size": "B, batch size of the private run",
    "small_batch_size": "batch size of the cheap runs",
    "epsilon": "epsilon of the private run, with Poisson sampling",
    "delta": "delta of the private run",
    "l2_norm_clip": "C, the bound on an example's gradient",
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 200,
    "hidden": 8,
    "batch_size": 100,
    "small_batch_size": 10,
    "num_steps": 10,
    "learning_rates": (0.5, 2.0),
    "num_tuning_seeds": 1,
    "num_seeds": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, tan_search.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/tan_search"


def parse(argv: Sequence[str]) -> Settings:
    """Cheap runs with small batches choose the settings of a private run with large ones."""
    return command_line.read(argv, parse, "TAN search", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Trains what is not recorded yet, draws the record, and writes the flagfile of the private run."""
    record = run(settings)
    toy_experiment.draw(record, draw)
    path = record.directory / "train.flags"
    with endings.drawing():
        files.write(path, train_flags(record))
    found = record.results
    print(
        f"{path}: epsilon = {found['epsilon']:.4g} at delta = {settings.delta:g} for this run alone, predicted test "
        f"accuracy {100 * found['predicted_accuracy']:.1f} %."
    )
    print(
        f"The search is free only on public data: each small run has epsilon = {found['epsilon_of_one_small_run']:.4g}."
    )


def run(settings: Settings) -> records.Record:
    """Trains the runs that choose the learning rate, then those that test the prediction."""
    return laboratory.run(settings, tan_search)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy against the learning rate, with the runs at both batch sizes; returns all paths."""
    return figures.draw(record, directory)


def train_flags(record: records.Record) -> str:
    """The flagfile of the private run, for noisy_sgd.experiments.train."""
    setting, found = record.config, record.results
    chosen = {
        "algorithm": "dp_sgd",
        "dataset": setting["dataset"],
        "num_train_examples": setting["num_train_examples"],
        "model": "mlp",
        "hidden": setting["hidden"],
        "batch_size": setting["batch_size"],
        "sampling": "poisson",
        "num_steps": setting["num_steps"],
        "learning_rate": found["learning_rate"],
        "l2_norm_clip": setting["l2_norm_clip"],
        "noise_multiplier": found["noise_multiplier"],
        "delta": setting["delta"],
        "run_dir": record.directory / "private",
    }
    command = f"# python -m noisy_sgd.experiments.train --flagfile={record.directory / 'train.flags'}\n"
    expected = (
        f"# Expected: epsilon = {found['epsilon']:.4g}, test accuracy {100 * found['predicted_accuracy']:.1f} %.\n"
    )
    return command + expected + "".join(f"--{name}={value}\n" for name, value in chosen.items())


if __name__ == "__main__":
    flags.run(parse, main)
