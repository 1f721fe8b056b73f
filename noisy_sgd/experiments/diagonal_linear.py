"""Figures 3 to 7: gradient descent, SGD and Noisy-SGD on a diagonal linear network.

    python -m noisy_sgd.experiments.diagonal_linear --flagfile=configs/diagonal_linear/figure_3.flags

The measurements are those of `studies.diagonal_linear`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.data import regression
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, toy_experiment
from noisy_sgd.figures import diagonal_linear as figures
from noisy_sgd.studies import diagonal_linear

_DRAW = {"curves": figures.draw_curves, "distance": figures.draw_distance, "gap": figures.draw_gap}
_HELP = {
    "relative_step": "gamma times the largest eigenvalue of X^T X / n",
    "figure": command_line.one_of(
        "what is drawn: distances over the iterations, or over the noise the final distance or the limit's gap to the "
        "minimizer of phi",
        tuple(_DRAW),
    ),
    "data_seed": "seed of the data set",
    "alpha": "scale of the initial weights",
    "num_runs": "runs at every noise scale",
    "num_steps": "iterations of every run",
    "gradient_descent": "runs gradient descent too",
    "seed": "seed of sampling and noise",
    "run_dir": "where the run is recorded",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
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
    relative_step: float = diagonal_linear.PAPER_STEP
    alpha: float = 0.1
    num_runs: int = 5
    num_steps: int = 100_000
    gradient_descent: bool = True
    seed: int = 0
    run_dir: str = "runs/diagonal_linear"

    def __post_init__(self):
        config.require_choice("figure", self.figure, tuple(_DRAW))
        config.require_distinct("noise_scale", self.noise_scales)
        toy_experiment.require_noise_scale(*self.noise_scales)
        toy_experiment.require_positive("relative_step", self.relative_step)
        toy_experiment.require_positive("alpha", self.alpha)
        config.require_at_least("num_runs", self.num_runs, 1)
        config.require_at_least("num_steps", self.num_steps, 1)


def parse(argv: Sequence[str]) -> Settings:
    """Figures 3 to 7: gradient descent, SGD and Noisy-SGD on a diagonal linear network."""
    values, title = command_line.flag_set(), "diagonal linear network"
    command_line.define(values, title, Settings, _HELP)
    sigmas = "comma-separated sigmas; 0 is SGD"
    command_line.define_list(values, title, "noise_scale", Settings.noise_scales, sigmas)
    command_line.parse(values, argv, parse)
    noise_scales = command_line.numbers(values, "noise_scale")
    return Settings(noise_scales=noise_scales, **command_line.typed(values, Settings))


def main(settings: Settings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Trains gradient descent, SGD and Noisy-SGD at every noise scale, unless a finished record of that exists."""

    def measured(append, advance):
        lines, results = diagonal_linear.measure(
            regression.sparse(settings.data_seed),
            with_descent=settings.gradient_descent,
            with_limits=settings.figure == "gap",
            noise_scales=settings.noise_scales,
            relative_steps=(settings.relative_step,),
            num_runs=settings.num_runs,
            num_steps=settings.num_steps,
            alpha=settings.alpha,
            seed=settings.seed,
            grid=None if settings.figure == "curves" else [settings.num_steps],
            watch=advance,
        )
        for line in lines:
            append(line)
        return results

    total = (1 + settings.gradient_descent) * settings.num_steps
    return recorded_measurement.run(settings.run_dir, settings.resolved(), measured, total=total, unit="steps")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws a record under the name of its folder, such as figure_3; returns all paths."""
    return _DRAW[record.config["figure"]](record, directory, record.directory.name)


if __name__ == "__main__":
    flags.run(parse, main)
