"""Least squares: covariances of SGD and Noisy-SGD against their laws, or both sides of Theorem 1.

    python -m noisy_sgd.experiments.least_squares --flagfile=configs/least_squares/covariance.flags

The measurements are those of `studies.least_squares`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, toy_experiment
from noisy_sgd.figures import least_squares as figures
from noisy_sgd.studies import least_squares

UNDER, OVER = "under_parameterized", "over_parameterized"
# How records spell the regimes: those that exist stay valid. The command line takes these spellings too.
_RECORDED = {UNDER: "under_parametrised", OVER: "over_parametrised"}
_HELP = {
    "relative_step": "gamma times the largest eigenvalue of X^T X / n",
    "regime": command_line.one_of("more examples than dimensions, or fewer", (UNDER, OVER)),
    "noise_scale": "sigma",
    "num_examples": "n; by default 60, or 5 where d > n",
    "dimension": "d; by default 4, or 12 where d > n",
    "num_runs": "runs, or pairs of paths",
    "seed": "seed of sampling and noise",
    "run_dir": "where the run is recorded",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """The limit laws of the under-parameterized problem (n > d), or Theorem 1 of the over-parameterized one (d > n)."""

    regime: str = UNDER
    noise_scale: float = 0.3
    relative_step: float = 0.2
    num_examples: int | None = None
    dimension: int | None = None
    num_runs: int = 4_000
    seed: int = 0
    run_dir: str = "runs/least_squares"

    def __post_init__(self):
        spelled = {recorded: regime for regime, recorded in _RECORDED.items()}
        object.__setattr__(self, "regime", spelled.get(self.regime, self.regime))
        config.require_choice("regime", self.regime, (UNDER, OVER))
        under = self.regime == UNDER
        for name, default in (("num_examples", 60 if under else 5), ("dimension", 4 if under else 12)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            config.require_at_least(name, getattr(self, name), 1)
        sizes = (self.dimension, self.num_examples) if under else (self.num_examples, self.dimension)
        constraint = f"must be {'less' if under else 'more'} than `--num_examples`={self.num_examples} here"
        config.require(sizes[0] < sizes[1], "dimension", constraint, self.dimension, f"the regime is {self.regime}")
        toy_experiment.require_noise_scale(self.noise_scale)
        noisy = self.noise_scale > 0 or under
        config.require(noisy, "noise_scale", "must be above 0 for Theorem 1", self.noise_scale, "0.5 is usual")
        stable = 0 < self.relative_step < 1
        config.require(stable, "relative_step", "must lie between 0 and 1", self.relative_step, "0.2 is usual")
        config.require_at_least("num_runs", self.num_runs, 2)

    def resolved(self) -> dict[str, Any]:
        """What the measurement depends on, as the run directory records it: everything but the directory."""
        return super().resolved() | {"regime": _RECORDED[self.regime]}

    @property
    def unread(self) -> dict[str, str]:
        """The step size in the over-parameterized regime, where the data determine it."""
        if self.regime == UNDER:
            return {}
        return {"relative_step": f"means nothing to `--regime={OVER}`, whose step sizes follow from the data"}


def parse(argv: Sequence[str]) -> Settings:
    """Least squares: covariances of SGD and Noisy-SGD against their laws, or Theorem 1."""
    return command_line.read(argv, parse, "least squares", Settings, _HELP)


def main(settings: Settings) -> None:
    """Measures, unless a finished record exists, prints the numbers and draws them."""
    record = run(settings)
    for line in record.metrics:
        print(", ".join(f"{name} {value:.4g}" for name, value in line.items() if isinstance(value, (int, float))))
    toy_experiment.draw(record, draw)


def run(settings: Settings) -> records.Record:
    """Measures the limit laws (d < n), or Theorem 1 and the limits from 0 (d > n), unless that is finished."""
    shared = {"num_examples": settings.num_examples, "dimension": settings.dimension, "seed": settings.seed}
    options = {"noise_scale": settings.noise_scale, "num_runs": settings.num_runs, **shared}

    def measured(append, advance):
        if settings.regime == UNDER:
            found = least_squares.surrogate_covariance(relative_step=settings.relative_step, **options)
            advance(1)
            beside = least_squares.sampled_covariance(relative_step=settings.relative_step, **options)
        else:
            found = least_squares.theorem_1(**options)
            advance(1)
            beside = least_squares.interpolation(**shared)
        append(found)
        append(beside)
        advance(1)
        return found

    return recorded_measurement.run(settings.run_dir, settings.resolved(), measured, total=2, unit="measurements")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws a record under the name of its folder; returns all paths."""
    under = record.config["regime"] == _RECORDED[UNDER]
    draw_measured = figures.draw_covariance if under else figures.draw_theorem_1
    return draw_measured(record, directory, record.directory.name)


if __name__ == "__main__":
    flags.run(parse, main)
