"""What a user asked of the toy problems, checked: one frozen dataclass a binary, as in `config`.

Theory(share=0.1).resolved()      # what the run directory records
"""

import dataclasses
import math
from typing import Any

from noisy_sgd import config

PAPER_STEP = 1 / 1.3
FIGURES = ("curves", "distance", "gap")
REGIMES = ("under_parametrised", "over_parametrised")


def _require_share(name: str, value: float) -> None:
    config.require(0 < value <= 1, name, "must lie above 0 and be at most 1", value, "1 is the whole measurement")


def _require_positive(name: str, value: float) -> None:
    config.require(0 < value < math.inf, name, "must be positive and finite", value, "give a number above 0")


def _require_noise(*values: float) -> None:
    usable = all(0 <= value < math.inf for value in values)
    listed = ",".join(map(str, values))
    config.require(usable, "noise_scale", "must be at least 0 and finite", listed, "0 is SGD")


def _without_place(settings: Any) -> dict[str, Any]:
    described = dataclasses.asdict(settings)
    del described["run_dir"]
    return described


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagonalLinear:
    """One of Figures 3 to 7: which `figure` is drawn, on which data set, at which noise scales.

    Attributes:
        figure: "curves" over the iterations (Figures 3 and 6), the final "distance" (5) or the "gap" (4 and 7) over
            the noise.
        data_seed: of `regression.sparse`.
        noise_scales: sigmas; 0 is SGD.
        relative_step: gamma lambda_max.
        alpha: scale of the initial weights.
        num_runs: of every noise scale.
        num_steps: of every run.
        gradient_descent: whether to run it too.
        seed: of sampling and noise.
        run_dir: where it is recorded.
    """

    figure: str = "curves"
    data_seed: int = 13
    noise_scales: tuple[float, ...] = (0.0, 0.5)
    relative_step: float = PAPER_STEP
    alpha: float = 0.1
    num_runs: int = 5
    num_steps: int = 100_000
    gradient_descent: bool = True
    seed: int = 0
    run_dir: str = "runs/diagonal_linear"

    def __post_init__(self):
        config.require_choice("figure", self.figure, FIGURES)
        config.require_distinct("noise_scale", self.noise_scales)
        _require_noise(*self.noise_scales)
        _require_positive("relative_step", self.relative_step)
        _require_positive("alpha", self.alpha)
        config.require_at_least("num_runs", self.num_runs, 1)
        config.require_at_least("num_steps", self.num_steps, 1)

    def resolved(self) -> dict[str, Any]:
        """What the runs are a function of."""
        return _without_place(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """The limit laws of the under-parametrised problem (n > d), or Theorem 1 of the over-parametrised one (d > n)."""

    regime: str = "under_parametrised"
    noise_scale: float = 0.3
    relative_step: float = 0.2
    num_examples: int | None = None
    dimension: int | None = None
    num_runs: int = 4_000
    seed: int = 0
    run_dir: str = "runs/least_squares"

    def __post_init__(self):
        config.require_choice("regime", self.regime, REGIMES)
        under = self.regime == "under_parametrised"
        for name, default in (("num_examples", 60 if under else 5), ("dimension", 4 if under else 12)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            config.require_at_least(name, getattr(self, name), 1)
        sizes = (self.dimension, self.num_examples) if under else (self.num_examples, self.dimension)
        constraint = f"must be {'less' if under else 'more'} than `--num_examples`={self.num_examples} here"
        config.require(sizes[0] < sizes[1], "dimension", constraint, self.dimension, f"the regime is {self.regime}")
        _require_noise(self.noise_scale)
        noisy = self.noise_scale > 0 or under
        config.require(noisy, "noise_scale", "must be above 0 for Theorem 1", self.noise_scale, "0.5 is usual")
        stable = 0 < self.relative_step < 1
        config.require(stable, "relative_step", "must lie between 0 and 1", self.relative_step, "0.2 is usual")
        config.require_at_least("num_runs", self.num_runs, 2)

    def resolved(self) -> dict[str, Any]:
        """What the measurement is a function of."""
        return _without_place(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdeError:
    """How far the SDEs are from the algorithm: paths of the strong error, and its noise."""

    num_paths: int = 200
    noise_scale: float = 0.5
    seed: int = 0
    run_dir: str = "runs/sde_error"

    def __post_init__(self):
        config.require_at_least("num_paths", self.num_paths, 2)
        _require_noise(self.noise_scale)

    def resolved(self) -> dict[str, Any]:
        """What the measurement is a function of."""
        return _without_place(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A study on the first `num_data_sets` of `regression.sparse`; runs of each case, and steps of each run."""

    num_data_sets: int = 12
    num_runs: int = 3
    num_steps: int = 15_000
    run_dir: str = "runs/noise_threshold"

    def __post_init__(self):
        config.require_at_least("num_data_sets", self.num_data_sets, 1)
        config.require_at_least("num_runs", self.num_runs, 1)
        config.require_at_least("num_steps", self.num_steps, 1)

    def resolved(self) -> dict[str, Any]:
        """What the measurement is a function of."""
        return _without_place(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theory:
    """The theory's rows of the quick report; a `share` below 1 takes that part of the runs, steps and data sets."""

    num_data_sets: int = 16
    num_runs: int = 5
    num_steps: int = 30_000
    share: float = 1.0

    def __post_init__(self):
        _require_share("theory_share", self.share)

    def part(self, number: int, smallest: int = 2) -> int:
        """So much of `number`, rounded up."""
        return max(smallest, math.ceil(self.share * number))

    def resolved(self) -> dict[str, Any]:
        """What the measurements are a function of."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Everything that a report compares with the paper.

    Attributes:
        run_dir: holds a folder for each experiment.
        sweep: Figures 1 and 2.
        theory: the theory's quick rows.
        studies: configurations of other binaries, by their names; each has its place below `run_dir`.
    """

    run_dir: str
    sweep: config.Sweep
    theory: Theory
    studies: tuple[tuple[str, Any], ...] = ()
