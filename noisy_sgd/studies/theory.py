"""The measurements behind the report's rows on the theory: all of them take a minute or two.

Each measurement has a name, and makes lines of numbers from which the report's claims and figures are computed.

    for name, measure in theory.measurements():
        lines = measure()      # plain dictionaries
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from noisy_sgd.data import regression
from noisy_sgd.sde import diagonal_linear as formulas
from noisy_sgd.studies import diagonal_linear, least_squares

SMALL_STEP = 0.05
# Below the paper's step. What is said about these was seen on data sets with smaller seeds.
SMALLER_STEPS, FRESH = (0.6, 0.5), 32

Measurement = tuple[str, Callable[[], list[dict[str, Any]]]]


def measurements(
    *, num_data_sets: int = 16, num_runs: int = 5, num_steps: int = 30_000, share: float = 1.0
) -> list[Measurement]:
    """The name of every measurement and what makes its lines, in the order of the report.

    Args:
        num_data_sets: data sets of the comparison behind Figure 3. Defaults to 16.
        num_runs: runs of each algorithm on each of them. Defaults to 5.
        num_steps: of these runs. Defaults to 30,000.
        share: part of all runs, steps and data sets that is taken, in (0, 1]. Defaults to 1.
    """

    def part(number: int) -> int:
        return max(2, math.ceil(share * number))

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
        # At the end of these steps the loss is below 1e-14, and the weights no longer move.
        ("limits", functools.partial(_limits, num_runs=part(8), num_steps=part(60_000))),
        ("alpha_ratios", functools.partial(_alpha_ratios, num_data_sets=part(8), num_steps=part(num_steps))),
        ("unstable", lambda: [diagonal_linear.unstable(data_seed) for data_seed in range(part(200))]),
    ]
    options = {"num_steps": part(num_steps), "num_runs": part(num_runs)}
    found += [_single(diagonal_linear.compare, data_seed, **options) for data_seed in range(part(num_data_sets))]
    options = {"num_steps": part(num_steps // 2), "num_runs": part(3)}
    return found + [
        (
            f"compare_at_{relative_step:g}",
            functools.partial(_compare, data_seed, relative_step=relative_step, **options),
        )
        for relative_step in SMALLER_STEPS
        for data_seed in range(FRESH, FRESH + part(32))
    ]


def _single(function: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> Measurement:
    return function.__name__, lambda: [function(*arguments, **options)]


def _compare(data_seed: int, **options: Any) -> list[dict[str, Any]]:
    return [diagonal_linear.compare(data_seed, **options)]


def _alpha_ratios(num_data_sets: int, num_steps: int) -> list[dict[str, Any]]:
    """`log_ratio` of `diagonal_linear.limits` at the paper's step size: two runs with and two without noise each."""
    lines = []
    for data_seed in range(num_data_sets):
        problem = regression.sparse(data_seed)
        setting, trajectory = diagonal_linear.train(
            problem, num_runs=2, num_steps=num_steps, seed=data_seed, grid=[num_steps]
        )
        exact = formulas.effective_alpha_from_weights(trajectory.weights)
        for run in np.flatnonzero(~trajectory.diverged):
            start = setting.initial[run, 0, 0]
            formula = diagonal_linear.formula_alpha(problem, setting, trajectory, run)
            lines.append(
                {
                    "data_seed": data_seed,
                    "relative_step": diagonal_linear.PAPER_STEP,
                    "noise_scale": float(setting.noise_scale[run]),
                    "log_ratio": float(np.median(np.log(exact[run] / start) / np.log(formula / start))),
                }
            )
    return lines


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
