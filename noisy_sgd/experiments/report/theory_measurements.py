"""The measurements behind the report's rows on the theory, in one recorded run, and their figures.

record = theory_measurements.run(theory_measurements.Settings(), "results/theory/run")
theory_measurements.draw(record, pathlib.Path("results/figures"))
"""

import dataclasses
import os
import pathlib
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments.support import recorded_measurement
from noisy_sgd.figures import diagonal_linear as diagonal_linear_figures
from noisy_sgd.figures import least_squares as least_squares_figures
from noisy_sgd.studies import theory

_DRAWN = ("surrogate_covariance", "theorem_1", "compare")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured; a `share` below 1 takes that part of all runs, steps and data sets."""

    num_data_sets: int = 16
    num_runs: int = 5
    num_steps: int = 30_000
    share: float = 1.0

    def __post_init__(self):
        usable = 0 < self.share <= 1
        constraint, way_out = "must lie above 0 and be at most 1", "1 is the whole measurement"
        config.require(usable, "theory_share", constraint, self.share, way_out)

    def resolved(self) -> dict[str, Any]:
        """The part of a run's record that identifies the measurements."""
        return dataclasses.asdict(self)


def run(settings: Settings, directory: str | os.PathLike) -> records.Record:
    """Measures and records, unless the directory holds the finished measurements."""
    named = theory.measurements(**dataclasses.asdict(settings))

    def measure(append, advance):
        for name, lines in named:
            for line in lines():
                append({"measurement": name, **line})
            advance(1)
        return {}

    return recorded_measurement.run(directory, settings.resolved(), measure, total=len(named), unit="measurements")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the covariances of Noisy-SGD, Theorem 1, and the comparison behind Figure 3; returns all paths."""
    lines = {name: [line for line in record.metrics if line["measurement"] == name] for name in _DRAWN}
    covariance, bound, compared = (lines[name] for name in _DRAWN)
    return [
        *least_squares_figures.draw_covariance(dataclasses.replace(record, results=covariance[-1]), directory),
        *least_squares_figures.draw_theorem_1(dataclasses.replace(record, results=bound[0]), directory),
        *diagonal_linear_figures.draw_order(
            dataclasses.replace(record, metrics=compared), directory, "diagonal_linear_order"
        ),
    ]
