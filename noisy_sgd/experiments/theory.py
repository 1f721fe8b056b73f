"""The theory's rows of the report: everything they need, measured in one recorded run of a minute or two.

Every line is a plain dictionary with the name of its measurement; the claims (`theory_claims.THEORY`) and the figures
are computed from the lines alone.

    record = theory.run(toy_problems.Theory(), "results/theory/run")
    theory.draw(record, pathlib.Path("results/figures"))
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from noisy_sgd import records
from noisy_sgd.data import regression
from noisy_sgd.experiments import diagonal_linear, least_squares
from noisy_sgd.experiments.support import recorded_measurement, toy_problems
from noisy_sgd.figures import diagonal_linear as diagonal_linear_figures
from noisy_sgd.figures import least_squares as least_squares_figures

SMALL_STEP = 0.05

Measurement = tuple[str, Callable[[], list[dict[str, Any]]]]


def run(settings: toy_problems.Theory, directory: str | os.PathLike) -> records.Record:
    """Measures what is not finished."""
    todo = measurements(settings)

    def measure(append, advance):
        for name, lines in todo:
            for line in lines():
                append({"measurement": name, **line})
            advance(1)
        return {}

    return recorded_measurement.run(directory, settings.resolved(), measure, total=len(todo), unit="measurements")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the covariances of Noisy-SGD, Theorem 1, and the family behind Figure 3; returns all paths."""
    lines = {name: [line for line in record.metrics if line["measurement"] == name] for name in _NAMES}
    covariance, bound, family = (lines[name] for name in _NAMES)
    return [
        *least_squares_figures.draw_covariance(dataclasses.replace(record, results=covariance[-1]), directory),
        *least_squares_figures.draw_theorem_1(dataclasses.replace(record, results=bound[0]), directory),
        *diagonal_linear_figures.draw_order(
            dataclasses.replace(record, metrics=family), directory, "diagonal_linear_order"
        ),
    ]


def measurements(settings: toy_problems.Theory) -> list[Measurement]:
    """The name of every measurement and what makes its lines, in order of the report.

    Args:
        settings: how many data sets, runs and steps.
    """
    part = settings.part
    covariance = {"num_runs": part(4_000), "num_snapshots": part(15)}
    found = [
        *(
            _single(least_squares.surrogate_covariance, noise_scale=noise_scale, **covariance)
            for noise_scale in (0.0, 0.3)
        ),
        _single(least_squares.sampled_covariance, noise_scale=0.0, **covariance),
        _single(least_squares.theorem_1, num_runs=part(2_000)),
        _single(least_squares.interpolation, num_steps=part(20_000)),
        _single(diagonal_linear.gradient_descent_limit, regression.sparse(0), num_steps=part(500_000)),
        *(
            _single(diagonal_linear.weight_product, regression.sparse(0), relative_step=relative_step)
            for relative_step in (diagonal_linear.PAPER_STEP, SMALL_STEP)
        ),
        # Until the loss is below 1e-14, where the limit stands still.
        ("limits", functools.partial(_limits, num_runs=part(8), num_steps=part(60_000))),
    ]
    options = {"num_steps": part(settings.num_steps), "num_runs": part(settings.num_runs)}
    family = range(part(settings.num_data_sets))
    return found + [_single(diagonal_linear.compare, data_seed, **options) for data_seed in family]


_NAMES = ("surrogate_covariance", "theorem_1", "compare")


def _single(function: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> Measurement:
    return function.__name__, lambda: [function(*arguments, **options)]


def _limits(num_runs: int, num_steps: int) -> list[dict[str, Any]]:
    problem = regression.sparse(0)
    trained = diagonal_linear.train(
        problem,
        noise_scales=(0.0, 0.5),
        relative_steps=(SMALL_STEP,),
        num_runs=num_runs,
        num_steps=num_steps,
        grid=[num_steps],
    )
    return diagonal_linear.limits(problem, *trained)
