"""Least squares: measured covariances against eqs. (12) to (15), the paths of Theorem 1, the limits from 0.

Every function returns a dictionary of numbers with its sample sizes. A run directory records them; the report's claims
and the figures are computed from them.

    least_squares.surrogate_covariance(noise_scale=0.3)["error_discrete"]      # relative Frobenius distance
"""

from typing import Any

import numpy as np

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.sde import brownian, euler_maruyama
from noisy_sgd.sde import least_squares as theory
from noisy_sgd.toy import settings, simulation


def surrogate_covariance(
    *,
    noise_scale: float,
    residual_scale: float = 1.0,
    num_examples: int = 60,
    dimension: int = 4,
    relative_step: float = 0.2,
    num_runs: int = 4_000,
    num_snapshots: int = 15,
    seed: int = 0,
) -> dict[str, Any]:
    """Covariance of the Euler steps of eq. (14), simulated with Gaussian sampling noise, against the closed forms.

    Runs start in the minimum. Between two snapshots the influence of a covariance on the next falls to e^-4.

    Args:
        noise_scale: sigma; 0 is eq. (12).
        residual_scale: epsilon. Defaults to 1.
        num_examples: n. Defaults to 60.
        dimension: d. Defaults to 4.
        relative_step: gamma lambda_max. Defaults to 0.2.
        num_runs: Defaults to 4,000.
        num_snapshots: Defaults to 15.
        seed: of the problem and the noise. Defaults to 0.

    Returns:
        `measured` and predicted covariances, relative Frobenius errors `error_*`, and the number of effective samples.
    """
    problem = regression.noisy(seed, num_examples, dimension, condition_number=4.0)
    step = relative_step / problem.largest_eigenvalue
    laws = {"step_size": step, "residual_scale": residual_scale, "noise_scale": noise_scale}
    equation = theory.under_parameterized(problem.features, problem.targets, **laws)
    predicted = {
        "discrete": theory.stationary_covariance(problem.features, **laws, discrete=True),
        "continuous": theory.stationary_covariance(problem.features, **laws),
        "paper_eq15": theory.paper_eq15(problem.features, **laws),
    }
    solution = theory.minimum_norm_solution(problem.features, problem.targets)
    generator = keys.generator(seed, "noise")
    theta = np.tile(solution, (num_runs, 1))
    between = _relaxation(problem.features, step)
    measured = np.zeros((dimension, dimension))
    for snapshot in range(num_snapshots + 1):
        for _ in range(between if snapshot else 2 * between):
            increments = brownian.increments(generator, 1, step, (num_runs, equation.noise_dimension))
            theta = euler_maruyama.integrate(equation, theta, increments, step)
        if snapshot:
            measured += (theta - solution).T @ (theta - solution) / (num_runs * num_snapshots)
    return _compare(measured, predicted, num_runs * num_snapshots) | laws | {"relative_step": relative_step}


def sampled_covariance(
    *,
    noise_scale: float,
    num_examples: int = 60,
    dimension: int = 4,
    relative_step: float = 0.1,
    num_runs: int = 4_000,
    num_snapshots: int = 15,
    seed: int = 0,
) -> dict[str, Any]:
    """Covariance of SGD with real sampling against its own recursion, and how far the modeled noise is from it.

    Args:
        noise_scale: sigma; constant noise of eq. (14).
        num_examples: n. Defaults to 60.
        dimension: d. Defaults to 4.
        relative_step: gamma lambda_max. Defaults to 0.1.
        num_runs: Defaults to 4,000.
        num_snapshots: Defaults to 15.
        seed: of the problem, the sampling and the noise. Defaults to 0.

    Returns:
        As `surrogate_covariance`, with the error against the recursion `error_recursion`, and `model_gap`, the
        surrogate's closed form (with the residuals' own size) relative to the recursion.
    """
    problem = regression.noisy(seed, num_examples, dimension, condition_number=4.0)
    step = relative_step / problem.largest_eigenvalue
    solution = theory.minimum_norm_solution(problem.features, problem.targets)
    residual_scale = np.sqrt(np.mean((problem.features @ solution - problem.targets) ** 2))
    recursion = theory.sampled_covariance(problem.features, problem.targets, step, noise_scale)
    laws = {"step_size": step, "residual_scale": residual_scale, "noise_scale": noise_scale}
    modeled = theory.stationary_covariance(problem.features, **laws, discrete=True)
    between = _relaxation(problem.features, step)
    theta = np.broadcast_to(solution, (num_runs, dimension))
    measured = np.zeros((dimension, dimension))
    for snapshot in range(num_snapshots + 1):
        setting = settings.RunSettings(
            model="least_squares",
            features=problem.features,
            targets=problem.targets,
            num_runs=num_runs,
            step_size=step,
            noise_scale=noise_scale,
            initial=theta,
            vanishing_noise=False,
        )
        # The first steps lead from a point to the stationary law, and are not counted.
        length = between if snapshot else 2 * between
        theta = simulation.simulate(setting, length, (seed << 32) + snapshot, grid=[length]).weights
        if snapshot:
            measured += (theta - solution).T @ (theta - solution) / (num_runs * num_snapshots)
    compared = _compare(measured, {"recursion": recursion, "modelled": modeled}, num_runs * num_snapshots)
    gap = np.linalg.norm(modeled - recursion) / np.linalg.norm(recursion)
    return compared | laws | {"relative_step": relative_step, "num_examples": num_examples, "model_gap": gap}


def theorem_1(
    *,
    noise_scale: float = 0.5,
    num_examples: int = 5,
    dimension: int = 12,
    num_runs: int = 2_000,
    num_steps: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """Left and right sides of Theorem 1 on pairs of paths of eq. (16), with and without noise, on common Brownian
    motions.

    gamma = 1 / Tr(H), and the equations are integrated with a time step of gamma.

    Args:
        noise_scale: sigma. Defaults to 0.5.
        num_examples: n. Defaults to 5.
        dimension: d. Defaults to 12.
        num_runs: pairs of paths. Defaults to 2,000.
        num_steps: Defaults to 300.
        seed: of the problem and the noise. Defaults to 0.

    Returns:
        Lists over times: `left`, `right`, standard errors of their difference; and `largest_z`, the
        largest mean difference in units of its standard error.
    """
    problem = regression.noisy(seed, num_examples, dimension)
    step = 1.0 / np.trace(theory.hessian(problem.features))
    equation = theory.over_parameterized(problem.features, problem.targets, step, [[0.0], [noise_scale]])
    shape = (num_runs, 1, equation.noise_dimension)
    increments = brownian.increments(keys.generator(seed, "noise"), num_steps, step, shape)
    pair, integral = np.zeros((num_runs, 2, dimension)), np.zeros(num_runs)
    left, right, errors = [], [], []
    for increment in increments:
        residual = pair[:, 1] @ problem.features.T - problem.targets
        integral += step * np.mean(residual**2, axis=-1)
        pair = euler_maruyama.integrate(equation, pair, increment[None], step)
        distance = np.sum((pair[:, 0] - pair[:, 1]) ** 2, axis=-1)
        bound = theory.distance_bound(problem.features, step, noise_scale, integral)
        left.append(distance.mean())
        right.append(bound.mean())
        errors.append((distance - bound).std(ddof=1) / np.sqrt(num_runs))
    z = (np.array(left) - np.array(right)) / np.array(errors)
    return {
        "time": (step * np.arange(1, num_steps + 1)).tolist(),
        "left": left,
        "right": right,
        "standard_error": errors,
        "largest_z": z.max(),
        "num_pairs": num_runs,
        "noise_scale": noise_scale,
    }


def interpolation(
    *,
    num_examples: int = 5,
    dimension: int = 12,
    num_runs: int = 20,
    num_steps: int = 20_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Largest coordinate distance of gradient descent and SGD from 0 to the minimum-norm interpolator."""
    problem = regression.noisy(seed, num_examples, dimension)
    solution = theory.minimum_norm_solution(problem.features, problem.targets)
    distances = {}
    for name, batch_size, runs in (("gd", None, 1), ("sgd", 1, num_runs)):
        setting = settings.RunSettings(
            model="least_squares",
            features=problem.features,
            targets=problem.targets,
            num_runs=runs,
            step_size=1.0 / np.sum(problem.features**2, axis=1).max(),
            batch_size=batch_size,
            initial=0.0,
        )
        weights = simulation.simulate(setting, num_steps, seed, grid=[num_steps]).weights
        distances[name] = np.abs(weights - solution).max()
    return distances | {"num_runs_sgd": num_runs, "num_steps": num_steps}


def _relaxation(features, step_size):
    """Steps after which the influence of a covariance on the next has fallen to e^-4."""
    slowest = np.linalg.eigvalsh(theory.hessian(features))[0]
    return int(np.ceil(2.0 / (step_size * slowest)))


def _compare(measured, predicted, samples):
    errors = {
        f"error_{name}": np.linalg.norm(measured - matrix) / np.linalg.norm(matrix)
        for name, matrix in predicted.items()
    }
    matrices = {name: matrix.tolist() for name, matrix in predicted.items()}
    return {"measured": measured.tolist(), "effective_samples": samples, **matrices, **errors}
