"""Does SGD with a moderate learning rate leave another error than gradient descent? Two phases on least squares.

Wu, Zou, Braverman and Gu (2021, "Direction Matters", arXiv 2011.02538): a moderate rate, then a small one. The error
e = theta - theta_LS of SGD lies along large eigenvalues of H = X^T X / n, that of gradient descent along small ones.
The measure is the Rayleigh quotient e^T H e / |e|^2, between the smallest positive and the largest eigenvalue.

    two_samples()                      # exact, for x_1 = sqrt(kappa) e_1, x_2 = e_2
    line = measure({"data_seed": 0, "num_runs": 10, "num_steps": 400})      # 20 Gaussian examples in 200 dimensions
    order([line])                      # on how many data sets SGD's quotient is above gradient descent's

Rules, written before the final run: with two samples SGD's quotient is above 0.9 times the largest eigenvalue with a
probability of at least 0.99, and gradient descent's is below 1.1 times the smallest. On Gaussian data SGD's median
quotient is above gradient descent's, and above that of SGD with the small rate alone, by one-sided sign tests over data
sets, p < 0.01 after Holm's adjustment for the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd import statistics
from noisy_sgd.data import regression
from noisy_sgd.sde import least_squares as theory
from noisy_sgd.toy import settings, simulation, trajectories

Line = dict[str, Any]
Lines = list[Line]

# In units of 1 over the largest squared norm of an example: SGD is stable below 2.
MODERATE, SMALL = 1.9, 0.1
LEVEL = 0.01
# Name of each algorithm: its batch size, and its rates in the two phases.
ALGORITHMS = {
    "sgd": (1, (MODERATE, SMALL)),
    "gd": (None, (MODERATE, SMALL)),
    "small_sgd": (1, (SMALL, SMALL)),
}
_NUM_EXAMPLES, _DIMENSION = 20, 200


def two_samples(
    *, condition: float = 4.0, moderate: float = MODERATE, small: float = SMALL, phases: Sequence[int] = (400, 200)
) -> Line:
    """The exact law of the quotient on x_1 = sqrt(kappa) e_1 and x_2 = e_2 after both phases, from e = (1, 1).

    A step of SGD on x_1 multiplies e_1 by 1 - eta kappa, one on x_2 multiplies e_2 by 1 - eta. How often each is drawn
    is binomial. A step of gradient descent multiplies both, by 1 - eta kappa / 2 and 1 - eta / 2.

    Args:
        condition: kappa, above 1.
        moderate: first rate, in units of 1 / kappa. SGD keeps e_1 if eta = moderate / kappa is above 2 / (1 + kappa).
            Defaults to 1.9.
        small: second rate, in units of 1 / kappa. Defaults to 0.1.
        phases: steps of each phase. Defaults to 400 and 200.

    Returns:
        `sgd_probability` that SGD's quotient is above 0.9 times the largest eigenvalue; `gd_quotient` over the smallest
        eigenvalue.
    """
    rates = np.array([moderate, small]) / condition
    counts = [np.arange(steps + 1) for steps in phases]
    law = np.multiply.outer(*(stats.binom.pmf(count, count[-1], 0.5) for count in counts))
    # How often x_1 was drawn in either phase decides both errors.
    log_large, log_small = (
        [logarithms[phase] * drawn for phase, drawn in enumerate(draws)]
        for logarithms, draws in (
            (np.log(np.abs(1 - rates * condition)), counts),
            (np.log(np.abs(1 - rates)), [count[::-1] for count in counts]),
        )
    )
    sgd = _quotient(condition, np.add.outer(*log_large), np.add.outer(*log_small))
    descent = _quotient(
        condition, *(np.sum(phases * np.log(np.abs(1 - rates * value / 2))) for value in (condition, 1.0))
    )
    return {
        "condition": condition,
        "phases": list(phases),
        "sgd_probability": float(law[sgd > 0.9 * condition / 2].sum()),
        "gd_quotient": float(descent / 0.5),
    }


def measure(case: Mapping[str, int]) -> Line:
    """One Gaussian data set: quotients of each algorithm over the steps, medians over runs.

    Args:
        case: `data_seed` of `regression.noisy` with 20 examples in 200 dimensions and of sampling, `num_runs` of SGD,
            and `num_steps` of the first phase; the second has half as many.

    Returns:
        A line: the extreme positive eigenvalues; the recorded `steps`; per algorithm its quotients at these (`sgd`,
        `gd`, and `small_sgd` with the small rate in both phases) and its last median squared error (`NAME_error`).
    """
    data_seed, num_runs, num_steps = (case[name] for name in ("data_seed", "num_runs", "num_steps"))
    phases = (num_steps, max(1, num_steps // 2))
    problem = regression.noisy(data_seed, _NUM_EXAMPLES, _DIMENSION)
    solution = theory.minimum_norm_solution(problem.features, problem.targets)
    unit = 1.0 / np.sum(problem.features**2, axis=1).max()
    grids = [trajectories.logarithmic_grid(steps) for steps in phases]
    values = np.linalg.eigvalsh(problem.features @ problem.features.T / _NUM_EXAMPLES)
    line = {
        "smallest": float(values[0]),
        "largest": float(values[-1]),
        "steps": np.concatenate([grids[0], phases[0] + grids[1][1:]]).tolist(),
    }
    for name, (batch_size, rates) in ALGORITHMS.items():
        weights, quotients = 0.0, []
        for phase, (rate, grid) in enumerate(zip(rates, grids, strict=True)):
            setting = settings.RunSettings(
                model="least_squares",
                features=problem.features,
                targets=problem.targets,
                num_runs=num_runs if batch_size else 1,
                step_size=rate * unit,
                batch_size=batch_size,
                initial=weights,
            )
            # Each phase draws its own examples.
            trajectory = simulation.simulate(
                setting, phases[phase], 2 * data_seed + phase, reference=solution, grid=grid
            )
            weights = trajectory.weights
            # The loss is e^T H e / 2.
            found = np.median(2 * trajectory.loss / trajectory.squared_distance, axis=1)
            quotients += found[1 if phase else 0 :].tolist()
        line[name] = quotients
        line[f"{name}_error"] = float(np.median(trajectory.squared_distance[-1]))
    return line


def order(lines: Lines) -> Line:
    """On how many data sets SGD ends with a larger quotient than gradient descent, and than with the small rate.

    Args:
        lines: of `measure`.

    Returns:
        Counts, one-sided p-values of sign tests adjusted by Holm's method, and medians over data sets of the last
        quotients over the largest eigenvalue and over the smallest.
    """
    last = {name: np.array([line[name][-1] for line in lines]) for name in ALGORITHMS}
    wins = {other: int(np.sum(last["sgd"] > last[other])) for other in ("gd", "small_sgd")}
    tests = [stats.binomtest(count, len(lines), alternative="greater").pvalue for count in wins.values()]
    largest, smallest = (np.array([line[name] for line in lines]) for name in ("largest", "smallest"))
    return {
        "data_sets": len(lines),
        **{f"above_{other}": count for other, count in wins.items()},
        **{f"above_{other}_p": p for other, p in zip(wins, statistics.holm(tests), strict=True)},
        **{f"{name}_over_largest": float(np.median(values / largest)) for name, values in last.items()},
        **{f"{name}_over_smallest": float(np.median(values / smallest)) for name, values in last.items()},
    }


def _quotient(condition, log_large, log_small):
    """The quotient on two samples, from the logarithms of |e_1| and |e_2|; H is diag(kappa, 1) / 2."""
    share = 1.0 / (1.0 + np.exp(np.clip(2 * (log_small - log_large), -700, 700)))
    return 0.5 * (condition * share + 1 - share)
