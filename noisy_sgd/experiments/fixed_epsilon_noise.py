"""The noise on the mean gradient that a fixed epsilon needs, at each batch size; nothing is trained.

    python -m noisy_sgd.experiments.fixed_epsilon_noise --flagfile=configs/fixed_epsilon_noise/epsilon_3.flags

The measurements are those of `studies.fixed_epsilon_noise`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, privacy, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_cases, toy_experiment
from noisy_sgd.figures import fixed_epsilon_noise as figures
from noisy_sgd.studies import fixed_epsilon_noise

_HELP = {
    "epsilon": "the budget of the run",
    "delta": "delta of the budget",
    "num_steps": "steps of the run",
    "num_examples": "training examples",
    "accountant": command_line.one_of("how epsilon is computed", privacy.accounting.ACCOUNTANTS),
    "run_dir": "where the measurement is recorded",
}
_SMOKE = {"num_steps": 10, "num_examples": 300, "accountant": "rdp"}
_PRIVACY = {"text": "No privacy guarantee: nothing is trained."}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings):
    """A budget, and the run that spends it."""

    epsilon: float = 3.0
    delta: float = 1e-5
    num_steps: int = 2_000
    num_examples: int = 60_000
    accountant: str = "pld"
    # Nothing but the accountant is run, and the parent process has it imported.
    num_processes: int | None = 1
    run_dir: str = "runs/fixed_epsilon_noise"

    def __post_init__(self):
        toy_experiment.require_positive("epsilon", self.epsilon)
        config.require(0 < self.delta < 1, "delta", "must be between 0 and 1", self.delta, "such as 1e-5")
        config.require_at_least("num_steps", self.num_steps, 1)
        config.require_choice("accountant", self.accountant, privacy.accounting.ACCOUNTANTS)
        # Three sampled batch sizes have two doublings.
        config.require_at_least("num_examples", self.num_examples, fixed_epsilon_noise.BATCH_SIZES[2] + 1)


def parse(argv: Sequence[str]) -> Settings:
    """The noise on the mean gradient that a fixed epsilon needs, at each batch size; nothing is trained."""
    return command_line.read(argv, parse, "privacy budget", Settings, _HELP, _SMOKE)


def main(settings: Settings) -> None:
    """Measures what is missing of the record, and draws it."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures what is missing of the record."""
    cases = fixed_epsilon_noise.cases(**settings.resolved())
    return recorded_cases.run(
        settings,
        (lambda lines: cases,),
        fixed_epsilon_noise.measure,
        fixed_epsilon_noise.summarize,
        unit="measurements",
        privacy=_PRIVACY,
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the noise against the batch size; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
