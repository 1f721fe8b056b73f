"""Audits DP-SGD and Noisy-SGD: lower bounds on epsilon from attacks, against the epsilon that DP-SGD claims.

    python -m noisy_sgd.experiments.audit --flagfile=configs/audit/digits.flags

The measurements are those of `studies.audit`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, startup, toy_experiment
from noisy_sgd.figures import audit as figures
from noisy_sgd.privacy.auditing import one_run

PRIVACY = {
    "text": "No privacy guarantee: the record compares what the audited runs did with and without known examples. What "
    "each audited run claims is in its line."
}
_HELP = {
    "num_runs": "audited runs for each epsilon and algorithm",
    "num_examples": "images of digits beside the canaries",
    "hidden": "hidden units of the perceptron",
    "num_steps": "steps of an audited run, each on all examples",
    "learning_rate": "learning rate",
    "l2_norm_clip": "C, bound on the norm of every example's gradient",
    "delta": "delta of the claim",
    "noise_correlation": "audits DP-SGD in one run with noise that is correlated over steps, such as lambda_cgd:0.9; "
    "by default independent noise, also of Noisy-SGD, and by many runs too",
    "seed": "seed of images, canaries and initial weights; coins and noise are secrets of the operating system",
    "run_dir": "where the record is written; the audited runs themselves are not kept",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """The claims that are audited, each with its canaries and guesses, and the training."""

    epsilons: tuple[float, ...] = (1.0, 4.0, 8.0)
    num_canaries: tuple[int, ...] = (1000, 1200, 31_900)
    num_guesses: tuple[int, ...] = (200, 1000, 31_000)
    num_trials: tuple[int, ...] = (20_000, 20_000, 100_000)
    num_runs: int = 20
    num_examples: int = 100
    hidden: int = 32
    num_steps: int = 5
    learning_rate: float = 0.5
    l2_norm_clip: float = 0.1
    delta: float = 1e-8
    seed: int = 0
    noise_correlation: str | None = None
    run_dir: str = "runs/audit"

    def __post_init__(self):
        config.require_distinct("epsilon", self.epsilons)
        toy_experiment.require_positive("epsilon", min(self.epsilons))
        for name in ("learning_rate", "l2_norm_clip"):
            toy_experiment.require_positive(name, getattr(self, name))
        for name in ("num_examples", "hidden", "num_steps"):
            config.require_at_least(name, getattr(self, name), 1)
        config.require_at_least("num_runs", self.num_runs, 2)
        inside = 0 < self.delta < 1
        config.require(inside, "delta", "must lie between 0 and 1", self.delta, "1e-8 leaves the bounds their power")
        if self.noise_correlation is not None:
            config.parsed_noise_correlation(self.noise_correlation)
        for name in ("num_canaries", "num_guesses", "num_trials"):
            listed = getattr(self, name)
            constraint, way_out = "must list one number for each `--epsilon`", f"give {len(self.epsilons)}"
            config.require(len(listed) == len(self.epsilons), name, constraint, ",".join(map(str, listed)), way_out)
        for trials in self.num_trials:
            config.require(trials >= 40, "num_trials", "must be at least 40", trials, "20,000 bound epsilon up to 6.8")
        for epsilon, canaries, guesses in zip(self.epsilons, self.num_canaries, self.num_guesses, strict=True):
            usable = 2 <= guesses <= canaries and guesses % 2 == 0
            constraint = "must be even, and at most the number of canaries"
            config.require(usable, "num_guesses", constraint, guesses, "half of them say in, half say out")
            largest = one_run.largest_bound(canaries, guesses, self.delta)
            constraint = f"must allow a bound above epsilon = {epsilon:g}, and that of so many is at most {largest:.3g}"
            way_out = f"give at least {one_run.guesses_needed(epsilon)}, and a smaller `--delta` if that is not enough"
            config.require(largest > epsilon, "num_guesses", constraint, guesses, way_out)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What is audited."""
        return ("dp_sgd", "noisy_sgd") if self.noise_correlation is None else ("dp_sgd",)

    @property
    def setup(self) -> dict[str, Any]:
        """The arguments of `studies.audit.Setup`."""
        names = ("num_examples", "hidden", "num_steps", "learning_rate", "l2_norm_clip", "delta", "seed")
        names += ("noise_correlation",)
        return {name: getattr(self, name) for name in names}


def parse(argv: Sequence[str]) -> Settings:
    """Lower bounds on epsilon from attacks, against what DP-SGD claims and for Noisy-SGD with the same noise."""
    values, title = command_line.flag_set(), "audit"
    command_line.define(values, title, Settings, _HELP)
    for name, default, explained in (
        ("epsilon", Settings.epsilons, "comma-separated claims of DP-SGD"),
        ("num_canaries", Settings.num_canaries, "canaries in each run, one number for each epsilon"),
        ("num_guesses", Settings.num_guesses, "guesses about them, the others are abstentions; as --num_canaries"),
        ("num_trials", Settings.num_trials, "runs of a tiny network, every other one with a canary; as --num_canaries"),
    ):
        command_line.define_list(values, title, name, default, explained)
    command_line.parse(values, argv, parse)
    typed = command_line.typed(values, Settings)
    for name in ("num_canaries", "num_guesses", "num_trials"):
        typed[name] = command_line.whole_numbers(values, name)
    return Settings(epsilons=command_line.numbers(values, "epsilon"), **typed)


def main(settings: Settings) -> None:
    """Audits, unless a finished record exists, and draws the record."""
    record = run(settings)
    for case in record.results["cases"]:
        print(
            f"{case['algorithm']}, {case['audit']}, epsilon {case['epsilon']:g}: bounds {case['lowest']:.2f} to "
            f"{case['highest']:.2f} of at most {case['largest_bound']:.2f}, {case['below']} of {case['count']} below"
        )
    toy_experiment.draw(record, draw)


def run(settings: Settings) -> records.Record:
    """Audits both algorithms at every epsilon, unless a finished record of that exists."""

    def measured(append, advance):
        startup.tensorflow()
        from noisy_sgd.studies import audit

        setup, lines = audit.Setup(**settings.setup), []
        for number, epsilon in enumerate(settings.epsilons):
            for algorithm in settings.algorithms:
                lines += audit.one_run(
                    setup,
                    algorithm,
                    epsilon=epsilon,
                    num_canaries=settings.num_canaries[number],
                    num_guesses=settings.num_guesses[number],
                    num_runs=settings.num_runs,
                    advance=advance,
                )
                if settings.noise_correlation is None:
                    trials = settings.num_trials[number]
                    lines.append(audit.many_runs(setup, algorithm, epsilon=epsilon, num_trials=trials))
                advance(1)
        for line in lines:
            append(line)
        return {"cases": audit.summary(lines)}

    total = len(settings.algorithms) * len(settings.epsilons) * (settings.num_runs + 1)
    return recorded_measurement.run(
        settings.run_dir, settings.resolved(), measured, total=total, unit="measurements", privacy=PRIVACY
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the bounds against the claims; returns all paths."""
    return figures.draw(record, directory)


if __name__ == "__main__":
    flags.run(parse, main)
