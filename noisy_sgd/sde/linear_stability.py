"""Up to which step size SGD and Noisy-SGD are stable at a sparse solution: linearized, in mean square.

Near beta* a step of a network beta = w+^D - w-^D moves the error e = beta - beta* on the support of beta* by

    e <- e - M a,    a = gamma (mean of r_i x_i) - gamma sigma |r| / sqrt(n) Z,    M = D^2 / 2 diag|beta*|^(2 - 2/D),

and does not change the other coordinates, whose weights are almost 0. With H = X^T X / n, the covariance S of e
follows the linear map

    S <- (I - gamma M H) S (I - gamma H M) + gamma^2 / B M (E[x x^T S x x^T] - H S H) M + gamma^2 sigma^2 tr(H S) M^2.

It contracts for the step sizes of one interval (0, edge): if P - T*(P) > 0 for a positive P at one step size, then at
every smaller one. Beyond the edge, runs may still converge almost surely, but their squared error has no mean.

    linear_stability.edge(features, solution)                       # SGD's largest gamma
    linear_stability.edge(features, solution, noise_scale=0.5)      # less
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import validation

_BISECTIONS = 40


def contraction(features, solution, step_size, noise_scale=0.0, depth=2, batch_size=1):
    """Spectral radius of the covariance's map: below 1 the squared error shrinks in the mean.

    Args:
        features: X [n, d].
        solution: beta* [d]; the map has k^2 rows for k non-zeros, so k should be at most about 30.
        step_size: gamma.
        noise_scale: sigma. Defaults to 0: SGD.
        depth: D. Defaults to 2.
        batch_size: B, drawn with replacement; None for all examples. Defaults to 1.

    Returns:
        A number.

    Raises:
        ValueError: for an empty design, a solution of another length or without non-zeros, a number out of range.
    """
    step_size = checks.positive("step_size", step_size)
    drift, sampling, added = _maps(features, solution, noise_scale, depth, batch_size)
    mean = np.eye(len(drift)) - step_size * drift
    transfer = np.kron(mean, mean) + step_size**2 * (sampling + added)
    return float(np.abs(np.linalg.eigvals(transfer)).max())


def edge(features, solution, noise_scale=0.0, depth=2, batch_size=1):
    """The step size at which the covariance's map ceases to contract; for gradient descent 2 over the curvature.

    Args:
        features: X [n, d].
        solution: beta* [d].
        noise_scale: sigma. Defaults to 0: SGD.
        depth: D. Defaults to 2.
        batch_size: B; None for all examples. Defaults to 1.

    Returns:
        gamma.

    Raises:
        ValueError: as `contraction`.
    """
    drift, _, _ = _maps(features, solution, noise_scale, depth, batch_size)
    stable, unstable = 0.0, 2.0 / np.abs(np.linalg.eigvals(drift)).max()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (stable + unstable)
        if contraction(features, solution, middle, noise_scale, depth, batch_size) < 1:
            stable = middle
        else:
            unstable = middle
    return unstable


def _maps(features, solution, noise_scale, depth, batch_size):
    """M H, and what gamma^2 multiplies in the map of vec S: the sampling's and the added noise's part."""
    features = validation.design(features)
    solution = np.asarray(solution, dtype=np.float64)
    noise_scale = checks.non_negative("noise_scale", noise_scale)
    depth = validation.count("depth", depth)
    if solution.shape != features.shape[1:] or not solution.any():
        raise ValueError(
            f"`solution` must have shape {features.shape[1:]} and a non-zero entry. Received: shape={solution.shape}"
        )
    support = np.flatnonzero(solution)
    features = features[:, support]
    size = 0.5 * depth**2 * np.abs(solution[support]) ** (2.0 - 2.0 / depth)
    second = features.T @ features / len(features)
    drift = size[:, None] * second
    sampling = np.zeros((len(support) ** 2,) * 2)
    if batch_size is not None:
        scaled = features * size
        fourth = np.einsum("na,nb,nc,nd->abcd", scaled, scaled, features, features, optimize=True) / len(features)
        sampling = (fourth.reshape(sampling.shape) - np.kron(drift, drift)) / validation.count("batch_size", batch_size)
    added = noise_scale**2 * np.outer(np.diag(size**2).ravel(), second.ravel())
    return drift, sampling, added
