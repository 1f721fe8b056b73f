"""How far the SDE is from the algorithm as the learning rate shrinks: beyond the paper, which models one by the other.

The learning rate gamma is the step of the algorithm, and its square root is the size of the SDE's noise. Here both go
to 0 together, at a fixed time.

    sde_error.weak()["orders"]      # of means and covariances, exact, for the surrogate and for real sampling
    sde_error.strong("diagonal_linear")["order"]    # pathwise, Gaussian surrogate on one coarsened Brownian path
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.sde import brownian, diagonal_linear, euler_maruyama, least_squares, moments


def weak(
    *,
    num_examples: int = 60,
    dimension: int = 4,
    time: float = 2.0,
    effective_noise: float = 0.5,
    relative_steps: Sequence[float] = (0.08, 0.04, 0.02, 0.01),
    seed: int = 0,
) -> dict[str, Any]:
    """Errors of mean and covariance at a time, from exact moments: of order 1, and 2 with the drift -grad(L + gamma/4
    |grad L|^2).

    Under real sampling the covariance keeps an error of order 1 at either drift: the modeled noise is not that
    of sampling.

    Args:
        num_examples: n. Defaults to 60.
        dimension: d. Defaults to 4.
        time: in units of 1 / lambda_max. Defaults to 2.
        effective_noise: s of the N(0, s^2 I) added to the gradient, so that sigma = sqrt(gamma) s. Defaults to 0.5.
        relative_steps: gamma lambda_max, dividing the time. Defaults to 0.08 to 0.01.
        seed: of the problem. Defaults to 0.

    Returns:
        `lines`, one per step size, and `orders`, the slopes fitted to them.
    """
    problem = regression.noisy(seed, num_examples, dimension, condition_number=4.0)
    features, targets = problem.features, problem.targets
    residual_scale = np.std(targets - features @ least_squares.minimum_norm_solution(features, targets))
    initial = np.zeros(dimension)
    lines = []
    for relative_step in relative_steps:
        step, count = relative_step / problem.largest_eigenvalue, round(time / relative_step)
        noise = np.sqrt(step) * effective_noise
        algorithms = {
            "surrogate": moments.of_surrogate_steps(features, targets, initial, count, step, residual_scale, noise),
            "sampled": moments.of_sampled_steps(features, targets, initial, count, step, noise),
        }
        line = {"relative_step": relative_step, "num_steps": count}
        for drift in ("plain", "modified"):
            equation = moments.of_equation(
                features,
                targets,
                initial,
                count * step,
                step,
                residual_scale,
                noise,
                modified_drift=drift == "modified",
            )
            for algorithm, law in algorithms.items():
                for moment, ours, theirs in zip(("mean", "covariance"), law, equation, strict=True):
                    line[f"{algorithm}_{drift}_{moment}"] = np.linalg.norm(ours - theirs)
        lines.append(line)
    names = [name for name in lines[0] if name.endswith(("mean", "covariance"))]
    orders = {name: _slope(relative_steps, [line[name] for line in lines]) for name in names}
    return {"lines": lines, "orders": orders, "residual_scale": residual_scale, "num_examples": num_examples}


def strong(
    model: str,
    *,
    relative_steps: Sequence[float] = (0.16, 0.08, 0.04, 0.02),
    noise_scale: float = 0.5,
    time: float = 4.0,
    num_paths: int = 200,
    refinement: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Root mean square distance, path by path, between the Gaussian-surrogate algorithm and its SDE at a time.

    The algorithm is Euler-Maruyama with time step gamma; the SDE's path is the same with `refinement` times smaller
    steps, on the Brownian path of which the algorithm's increments are sums.

    Args:
        model: "least_squares" (eq. (16) with noise) or "diagonal_linear" (eq. (19)).
        relative_steps: gamma lambda_max, dividing the time. Defaults to 0.16 to 0.02.
        noise_scale: sigma. Defaults to 0.5.
        time: in units of 1 / lambda_max. Defaults to 4.
        num_paths: Defaults to 200.
        refinement: Defaults to 16.
        seed: of the problem and the paths. Defaults to 0.

    Returns:
        `lines`, one per step size, the fitted `order` and its 95 % bootstrap interval over paths.
    """
    if model not in ("least_squares", "diagonal_linear"):
        raise ValueError(f"`model` must be 'least_squares' or 'diagonal_linear'. Received: model={model!r}")
    problem = regression.sparse(seed, 10, 25, 3)
    theory, start = (
        (least_squares.over_parameterized, np.zeros(25))
        if model == "least_squares"
        else (diagonal_linear.equation, np.full((2, 25), 0.3))
    )
    initial = np.broadcast_to(start, (num_paths, *start.shape))
    generator = keys.generator(seed, "noise")
    distances = []
    for relative_step in relative_steps:
        step = relative_step / problem.largest_eigenvalue
        equation = theory(problem.features, problem.targets, step, noise_scale)
        num_fine = round(time / relative_step) * refinement
        shape = (num_paths, equation.noise_dimension)
        fine = brownian.increments(generator, num_fine, step / refinement, shape)
        ends = [
            euler_maruyama.integrate(equation, initial, increments, size).reshape(num_paths, -1)
            for increments, size in ((fine, step / refinement), (brownian.coarsen(fine, refinement), step))
        ]
        distances.append(np.sum((ends[0] - ends[1]) ** 2, axis=1))
    distances = np.array(distances)
    picks = keys.stream(keys.derive(seed, "order")).integers(num_paths, size=(500, num_paths))
    resampled = [_slope(relative_steps, np.sqrt(distances[:, pick].mean(axis=1))) for pick in picks]
    errors = np.sqrt(distances.mean(axis=1))
    return {
        "lines": [{"relative_step": step, "error": error} for step, error in zip(relative_steps, errors, strict=True)],
        "order": _slope(relative_steps, errors),
        "interval": np.quantile(resampled, [0.025, 0.975]).tolist(),
        "num_paths": num_paths,
        "model": model,
    }


def _slope(steps, errors):
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])
