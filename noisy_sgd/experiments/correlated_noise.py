"""Does noise that is correlated over steps amplify the implicit bias without tilting it? Diagonal linear networks.

    python -m noisy_sgd.experiments.correlated_noise --flagfile=configs/correlated_noise/diagonal_linear.flags

The measurements are those of `studies.correlated_noise`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_cases, recorded_measurement, toy_experiment
from noisy_sgd.figures import correlated_noise as figures
from noisy_sgd.studies import correlated_noise

_HELP = {
    "num_data_sets": "data sets that are judged",
    "num_tuning_data_sets": "other data sets, by which the scales of the noise are chosen",
    "num_runs": "runs of each case on each data set",
    "num_steps": "iterations of every run",
    **recorded_cases.HELP,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings):
    """How many data sets are measured, with how many runs of each case, and how many steps of each run."""

    num_data_sets: int = 20
    num_tuning_data_sets: int = 10
    num_runs: int = 3
    num_steps: int = 20_000
    run_dir: str = "runs/correlated_noise"

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_data_sets", "num_tuning_data_sets", "num_runs", "num_steps"):
            config.require_at_least(name, getattr(self, name), 1)


def parse(argv: Sequence[str]) -> Settings:
    """Distance to the sparse solution, alpha and tilt with noise that is correlated over steps, and its rivals."""
    smoke = {"num_data_sets": 2, "num_tuning_data_sets": 1, "num_runs": 2, "num_steps": 60}
    return command_line.read(argv, parse, "data sets and runs", Settings, _HELP, smoke=smoke)


def main(settings: Settings) -> None:
    """Measures, unless a finished record exists, and draws the record."""
    toy_experiment.draw(run(settings), draw)


def run(settings: Settings) -> records.Record:
    """Measures every data set that the record does not hold yet: first those that choose the scales."""
    sizes = settings.num_runs, settings.num_steps
    return recorded_cases.run(
        settings,
        (
            lambda lines: correlated_noise.tuning_cases(settings.num_tuning_data_sets, *sizes),
            lambda lines: correlated_noise.final_cases(
                settings.num_data_sets, *sizes, correlated_noise.best_scales(lines)
            ),
        ),
        correlated_noise.measure,
        correlated_noise.summary,
        unit="measurements",
        privacy=recorded_measurement.PRIVACY,
    )


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the distances over step sizes, and alpha against tilt; returns all paths."""
    return [*figures.draw_distances(record, directory), *figures.draw_pairs(record, directory)]


if __name__ == "__main__":
    flags.run(parse, main)
