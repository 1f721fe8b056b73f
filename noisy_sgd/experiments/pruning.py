"""Does pruning before private training help DP-SGD?

    python -m noisy_sgd.experiments.pruning --flagfile=configs/pruning/mnist.flags

The measurements are those of `studies.pruning`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import laboratory, toy_experiment
from noisy_sgd.figures import pruning as figures
from noisy_sgd.studies import pruning

_HELP = {
    **laboratory.HELP,
    "num_train_examples": "private training examples, drawn anew by every seed",
    "num_public_examples": "public examples, of digits 0 to 4",
    "widths": "comma-separated units of the hidden layer",
    "fractions": "comma-separated fractions of the hidden kernel that are pruned; the first is 0",
    "epsilons": "comma-separated privacy budgets: the first at all widths, the others at the first width",
    "delta": "delta of all budgets",
    "batch_size": "expected size of a Poisson-sampled batch",
    "l2_norm_clip": "C, the bound on an example's gradient",
    "num_public_steps": "steps of the training on public examples",
    "public_learning_rate": "learning rate of the training on public examples",
}
_SMOKE = {
    "dataset": "digits",
    "num_train_examples": 100,
    "num_public_examples": 64,
    "widths": (8, 16),
    "fractions": (0.0, 0.9),
    "epsilons": (8.0,),
    "batch_size": 20,
    "num_steps": 5,
    "num_public_steps": 5,
    "learning_rates": (0.5, 2.0),
    "num_tuning_seeds": 1,
    "num_seeds": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(laboratory.Settings, pruning.Setting):
    """The study's setting, and the run directory."""

    run_dir: str = "runs/pruning"

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_steps", "batch_size"):
            config.require_at_least(name, getattr(self, name), 1)
        enough = self.batch_size <= self.num_train_examples
        config.require(enough, "batch_size", "must be at most `--num_train_examples`", self.batch_size, "lower it")
        for name in ("widths", "fractions", "epsilons"):
            config.require_distinct(name, getattr(self, name))
        for width in self.widths:
            config.require_at_least("widths", width, 1)
        config.require_at_least("num_public_examples", self.num_public_examples, pruning.PUBLIC_BATCH_SIZE)
        config.require_at_least("num_public_steps", self.num_public_steps, 1)
        for name in ("l2_norm_clip", "public_learning_rate"):
            toy_experiment.require_positive(name, getattr(self, name))
        for epsilon in self.epsilons:
            toy_experiment.require_positive("epsilons", epsilon)
        listed = ",".join(map(str, self.fractions))
        usable = self.fractions[0] == 0 and all(0 <= fraction < 1 for fraction in self.fractions)
        way_out = "give numbers such as 0,0.5,0.9"
        config.require(usable, "fractions", "must be at least 0 and less than 1, the first one 0", listed, way_out)
        heavy = max(self.fractions) >= pruning.HEAVY
        config.require(heavy, "fractions", f"must hold one of at least {pruning.HEAVY}", listed, way_out)
        config.require(0 < self.delta < 1, "delta", "must lie between 0 and 1", self.delta, "give 1e-5")
        within = 0 < self.ema_decay < 1
        config.require(within, "ema_decay", "must lie between 0 and 1", self.ema_decay, "0.98 averages 50 steps")


def parse(argv: Sequence[str]) -> Settings:
    """Accuracy of DP-SGD against the fraction of weights that are pruned before the private training."""
    return command_line.read(argv, parse, "pruning", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Measures what is not recorded yet, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures the runs that choose the learning rates, and those that are judged, budget by budget."""
    return laboratory.run(settings, pruning)


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws accuracy against the pruned fraction, and the gains of the rows; returns all paths."""
    return [*figures.draw_accuracy(record, directory), *figures.draw_gains(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
