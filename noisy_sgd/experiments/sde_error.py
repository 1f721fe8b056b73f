"""Errors of the SDEs as models of the algorithm, over the step size: beyond the paper.

    python -m noisy_sgd.experiments.sde_error --flagfile=configs/sde_error/orders.flags

The measurements are those of `studies.sde_error`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, toy_experiment
from noisy_sgd.figures import sde_error as figures
from noisy_sgd.studies import sde_error

# Of the weak errors, which are exact.
_PROBLEMS = 8
_HELP = {
    "num_paths": "paths of the strong error",
    "noise_scale": "sigma of the strong error",
    "seed": "seed of sampling and noise, and of the first problem",
    "run_dir": "where the run is recorded",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """The paths of the strong error, and their noise."""

    num_paths: int = 200
    noise_scale: float = 0.5
    seed: int = 0
    run_dir: str = "runs/sde_error"

    def __post_init__(self):
        config.require_at_least("num_paths", self.num_paths, 2)
        toy_experiment.require_noise_scale(self.noise_scale)


def parse(argv: Sequence[str]) -> Settings:
    """Errors of the SDEs as models of the algorithm, over the step size."""
    return command_line.read(argv, parse, "errors of the SDEs", Settings, _HELP)


def main(settings: Settings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures the weak errors on several problems, and the strong error of either model, unless that is finished."""

    def measured(append, advance):
        for seed in range(settings.seed, settings.seed + _PROBLEMS):
            append({"measurement": "weak", "problem_seed": seed, **sde_error.weak(seed=seed)})
            advance(1)
        options = {"noise_scale": settings.noise_scale, "num_paths": settings.num_paths, "seed": settings.seed}
        for model in ("least_squares", "diagonal_linear"):
            append({"measurement": "strong", **sde_error.strong(model, **options)})
            advance(1)
        return {}

    return recorded_measurement.run(
        settings.run_dir, settings.resolved(), measured, total=_PROBLEMS + 2, unit="measurements"
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the weak errors on the first problem and both strong ones over the step size; returns all paths."""
    weak_errors, strong_errors = (
        [dataclasses.replace(record, results=line) for line in record.metrics if line["measurement"] == name]
        for name in ("weak", "strong")
    )
    return figures.draw_weak(weak_errors[0], directory) + figures.draw_strong(strong_errors, directory)


if __name__ == "__main__":
    flags.run(parse, main)
