"""The variance of mini-batch gradients against the batch size B, at step t of SGD with that B: exact, without sampling.

Qian and Klabjan (2020, arXiv 2004.13146): the variance is a polynomial in 1 / B without constant term, and falls with
B. At the first step it is 1 / B times a number. Later the weights themselves vary with B, and the degree grows.

    linear(regression.noisy(0, 20, 5), 0.1, batch_sizes=(1, 2, 4), num_steps=1)     # least squares, exact moments
    network(features, targets, weights, 0.1, batch_sizes=(1, 2, 4))                 # two layers, all batches counted
    line = measure({"data_seed": 0, "num_runs": 1000, "num_steps": 1})
    summary([line])                                                                 # tests, and residuals of the fits

Examples are drawn with replacement. For least squares the second moments follow an exact recursion (`sde.moments`). For
the two-layer linear network W2 W1 x every batch of a small data set is enumerated, with its multinomial probability.

Rules, written before the final run: the variance falls with B by Page's trend test over 16 problems, p < 0.01 after
Holm's adjustment over the steps of a model; a polynomial in 1 / B without constant term, of the degree that the step
implies, leaves a relative residual below 1e-10 on more batch sizes than it has coefficients; variance times B is
constant (1e-10) at the first step, and varies by more than 1e-6 of itself at every later one; and simulated runs agree
with the exact variance within four standard errors.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd import keys, statistics
from noisy_sgd.data import regression
from noisy_sgd.sde import least_squares as theory
from noisy_sgd.sde import moments

Line = dict[str, Any]
Lines = list[Line]

LEVEL, LARGEST_RESIDUAL, SMALLEST_CHANGE, LARGEST_Z = 0.01, 1e-10, 1e-6, 4.0
BATCH_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
SIMULATED = 2
# Least squares: examples, dimensions, last step, gamma lambda_max.
_LINEAR_SIZES, _LINEAR_STEPS, _RELATIVE_STEP = (20, 5), 4, 0.4
# The network. There are 153 batches of 16 of 3 examples, and 23,409 of two steps.
_EXAMPLES, _INPUTS, _HIDDEN, _OUTPUTS, NETWORK_STEP = 3, 3, 2, 2, 0.1


def linear(problem: regression.Problem, step_size: float, *, batch_sizes: Sequence[int], num_steps: int) -> np.ndarray:
    """E |g_B - grad L|^2 for least squares at steps 0 to `num_steps` of SGD from 0: exact moments.

    Args:
        problem: a `regression.Problem`.
        step_size: gamma.
        batch_sizes: B.
        num_steps: the last step.

    Returns:
        Array [steps + 1, batch sizes].
    """
    features, targets = problem.features, problem.targets
    start = np.zeros(features.shape[1])
    curvature = theory.hessian(features)
    norms = np.sum(features**2, axis=1)
    found = np.empty((num_steps + 1, len(batch_sizes)))
    for step in range(num_steps + 1):
        for column, batch_size in enumerate(batch_sizes):
            mean, covariance = (
                moments.of_sampled_steps(features, targets, start, step, step_size, batch_size=batch_size)
                if step
                else (start, np.zeros((len(start), len(start))))
            )
            squares = np.einsum("ni,ij,nj->n", features, covariance, features) + (features @ mean - targets) ** 2
            # The squared norm of the mean gradient, over the law of theta.
            gradient = features.T @ (features @ mean - targets) / len(targets)
            full = gradient @ gradient + np.trace(curvature @ covariance @ curvature)
            found[step, column] = (np.mean(norms * squares) - full) / batch_size
    return found


def network(
    features: np.ndarray,
    targets: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    step_size: float,
    *,
    batch_sizes: Sequence[int],
    num_steps: int = 1,
) -> np.ndarray:
    """E |g_B - grad L|^2 for |W2 W1 x - y|^2 / 2 at steps 0 to `num_steps` of SGD: the mean over all batches.

    Args:
        features: X [n, d].
        targets: Y [n, outputs].
        weights: W1 [hidden, d] and W2 [outputs, hidden], at the start.
        step_size: gamma.
        batch_sizes: B; the batches of a step are as many as the multisets of B of the n examples.
        num_steps: the last step. Defaults to 1.

    Returns:
        Array [steps + 1, batch sizes].
    """
    found = np.empty((num_steps + 1, len(batch_sizes)))
    for column, batch_size in enumerate(batch_sizes):
        counts, probabilities = _batches(len(features), batch_size)
        states, law = tuple(array[None] for array in weights), np.ones(1)
        for step in range(num_steps + 1):
            gradients = example_gradients(features, targets, states)
            found[step, column] = law @ _variance(gradients) / batch_size
            if step < num_steps:
                states = tuple(
                    (array[:, None] - step_size * np.einsum("kn,sn...->sk...", counts / batch_size, gradient)).reshape(
                        -1, *array.shape[1:]
                    )
                    for array, gradient in zip(states, gradients, strict=True)
                )
                law = np.multiply.outer(law, probabilities).reshape(-1)
    return found


def example_gradients(
    features: np.ndarray, targets: np.ndarray, weights: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of |W2 W1 x - y|^2 / 2 of every example at every state, [states, n, ...], for W1 and W2."""
    first, second = weights
    hidden = np.einsum("shd,nd->snh", first, features)
    residuals = np.einsum("soh,snh->sno", second, hidden) - targets
    return (
        np.einsum("soh,sno,nd->snhd", second, residuals, features, optimize=True),
        np.einsum("sno,snh->snoh", residuals, hidden),
    )


def measure(case: Mapping[str, int]) -> Line:
    """One problem for each of the two models: exact variances, and simulated ones at one batch size.

    Args:
        case: `data_seed` of the problems and the simulation, `num_runs` of the simulation, and `num_steps`, the last
            step of the network, all of whose batches are enumerated: up to 2.

    Returns:
        A line with a dictionary for each of `linear` and `network`: `variances` [steps, batch sizes]; by step the
        relative `residuals` of the polynomial's fit (NaN where the degree leaves nothing to test) and the relative
        `changes` of variance times B over the batch sizes; and `largest_z`, the simulation's largest deviation in
        standard errors.
    """
    data_seed, num_runs, num_steps = (case[name] for name in ("data_seed", "num_runs", "num_steps"))
    problem = regression.noisy(data_seed, *_LINEAR_SIZES)
    step_size = _RELATIVE_STEP / problem.largest_eigenvalue
    exact = linear(problem, step_size, batch_sizes=BATCH_SIZES, num_steps=_LINEAR_STEPS)
    simulated = _simulate(
        functools.partial(_linear_gradients, problem.features, problem.targets),
        (np.zeros(problem.features.shape[1]),),
        step_size,
        keys.stream(keys.derive(data_seed, "order"), 0),
        num_runs=num_runs,
        num_steps=_LINEAR_STEPS,
    )
    found = {"linear": _judge(exact, simulated, degrees=range(1, _LINEAR_STEPS + 2))}
    generator = keys.stream(keys.derive(data_seed, "synthetic data"), 1)
    shapes = [(_EXAMPLES, _INPUTS), (_EXAMPLES, _OUTPUTS), (_HIDDEN, _INPUTS), (_OUTPUTS, _HIDDEN)]
    features, targets, *weights = (generator.standard_normal(shape) for shape in shapes)
    exact = network(features, targets, weights, NETWORK_STEP, batch_sizes=BATCH_SIZES, num_steps=num_steps)
    simulated = _simulate(
        functools.partial(example_gradients, features, targets),
        weights,
        NETWORK_STEP,
        keys.stream(keys.derive(data_seed, "order"), 1),
        num_runs=num_runs,
        num_steps=num_steps,
    )
    # After one step the squared gradient is of degree 6 in the mean of B draws, whose moments are of degree 5 in 1 / B.
    return found | {"network": _judge(exact, simulated, degrees=(1, 6, len(BATCH_SIZES))[: num_steps + 1])}


def summary(lines: Lines) -> Lines:
    """Per model the trend test of every step, and residuals, changes and deviations, the worst over problems.

    Args:
        lines: of `measure`.

    Returns:
        Lines: p by step, adjusted by Holm's method; the largest residuals, the smallest and the largest changes by
        step; `largest_z`.
    """
    found = []
    for model in ("linear", "network"):
        here = [line[model] for line in lines]
        variances = np.array([one["variances"] for one in here])
        residuals, changes = (np.array([one[key] for one in here], np.float64) for key in ("residuals", "changes"))
        found.append(
            {
                "model": model,
                "problems": len(here),
                "p": statistics.holm([statistics.falls(variances[:, step]) for step in range(variances.shape[1])]),
                "residuals": residuals.max(axis=0).tolist(),
                "smallest_changes": changes.min(axis=0).tolist(),
                "largest_changes": changes.max(axis=0).tolist(),
                "largest_z": max(one["largest_z"] for one in here),
            }
        )
    return found


def fit_residual(batch_sizes: Sequence[int], variances: np.ndarray, degree: int) -> float:
    """Largest relative residual of the best polynomial in 1 / B without constant term; NaN if it has no freedom."""
    if degree >= len(batch_sizes):
        return float("nan")
    powers = (1.0 / np.array(batch_sizes))[:, None] ** np.arange(1, degree + 1) / variances[:, None]
    coefficients = np.linalg.lstsq(powers, np.ones(len(batch_sizes)), rcond=None)[0]
    return float(np.abs(powers @ coefficients - 1).max())


def _judge(variances, simulated, degrees):
    scaled = variances * np.array(BATCH_SIZES)
    means, errors = simulated
    exact = variances[:, BATCH_SIZES.index(SIMULATED)]
    return {
        "variances": variances.tolist(),
        "residuals": [fit_residual(BATCH_SIZES, *pair) for pair in zip(variances, degrees, strict=True)],
        "changes": (np.ptp(scaled, axis=1) / scaled.max(axis=1)).tolist(),
        "simulated": means.tolist(),
        "standard_errors": errors.tolist(),
        "largest_z": float(np.abs((means - exact) / errors).max()),
    }


def _simulate(gradients_of, weights, step_size, generator, *, num_runs, num_steps):
    """Means over runs of |g_B - grad L|^2 at steps 0 to `num_steps` of SGD, and their standard errors."""
    states = tuple(np.broadcast_to(array, (num_runs, *array.shape)) for array in weights)
    means, errors = np.empty((2, num_steps + 1))
    for step in range(num_steps + 1):
        gradients = gradients_of(states)
        num_examples = gradients[0].shape[1]
        counts = generator.multinomial(SIMULATED, np.full(num_examples, 1 / num_examples), size=num_runs)
        batches = [np.einsum("sn,sn...->s...", counts / SIMULATED, gradient) for gradient in gradients]
        squares = sum(
            np.sum((batch - gradient.mean(axis=1)).reshape(num_runs, -1) ** 2, axis=1)
            for batch, gradient in zip(batches, gradients, strict=True)
        )
        means[step], errors[step] = squares.mean(), squares.std(ddof=1) / np.sqrt(num_runs)
        states = tuple(array - step_size * batch for array, batch in zip(states, batches, strict=True))
    return means, errors


def _linear_gradients(features, targets, states):
    (theta,) = states
    return (np.einsum("sn,nd->snd", theta @ features.T - targets, features),)


def _variance(gradients):
    """tr Cov of one example's gradient, for every state."""
    return sum(
        np.mean(np.sum((gradient - gradient.mean(axis=1, keepdims=True)) ** 2, axis=(2, 3)), axis=1)
        for gradient in gradients
    )


def _batches(num_examples, batch_size):
    """Counts [batches, n] of all multisets of B examples, and their multinomial probabilities."""
    dividers = itertools.combinations(range(batch_size + num_examples - 1), num_examples - 1)
    edges = np.array([(-1, *chosen, batch_size + num_examples - 1) for chosen in dividers])
    counts = np.diff(edges, axis=1) - 1
    return counts, stats.multinomial.pmf(counts, batch_size, np.full(num_examples, 1 / num_examples))
