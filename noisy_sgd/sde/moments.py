"""Mean and covariance over time, for least squares: of the SDE, of its Euler steps, and of SGD with real sampling.

All three laws have closed or exactly recursive first and second moments, so that the weak error of the SDE is computed
without sampling. Started at theta_0, with m = mean - theta_LS, S the covariance, q = gamma epsilon^2 H / B + sigma^2
I:

    equation (14)        m' = -H m,             S' = -H S - S H + q
    surrogate steps      m <- (I - gamma H) m,   S <- (I - gamma H) S (I - gamma H) + gamma q
    sampled steps        as the surrogate, with the true covariance of the sampled gradient at every theta in place of
    epsilon^2 H

    mean, covariance = moments.of_equation(features, targets, theta_0, time=2.0, step_size=0.1, residual_scale=1.0)
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import least_squares, validation


def of_equation(
    features, targets, initial, time, step_size, residual_scale, noise_scale=0.0, batch_size=1, modified_drift=False
):
    """Mean and covariance of eq. (14) at a time.

    Args:
        features: X [n, d].
        targets: Y [n].
        initial: theta_0 [d].
        time: t.
        step_size: gamma.
        residual_scale: epsilon.
        noise_scale: sigma. Defaults to 0.
        batch_size: B. Defaults to 1.
        modified_drift: whether the drift is -grad(L + gamma/4 |grad L|^2), of weak order 2. Defaults to False.

    Returns:
        Arrays [d] and [d, d].

    Raises:
        ValueError: for an empty design, a number out of range, an initial point of another dimension.
    """
    values, vectors, offset, solution, source = _prepare(
        features, targets, initial, step_size, residual_scale, noise_scale, batch_size
    )
    time = float(checks.non_negative("time", time))
    rates = values + 0.5 * step_size * values**2 if modified_drift else values
    mean = solution + vectors @ (np.exp(-rates * time) * offset)
    # (1 - exp(-2 rate t)) / (2 rate), which is t at rate 0.
    duration = np.where(rates > 0, -np.expm1(-2 * rates * time) / np.where(rates > 0, 2 * rates, 1.0), time)
    return mean, (vectors * (source * duration)) @ vectors.T


def of_surrogate_steps(features, targets, initial, num_steps, step_size, residual_scale, noise_scale=0.0, batch_size=1):
    """Mean and covariance after Euler steps of eq. (14) with time step gamma.

    Args:
        features: X [n, d].
        targets: Y [n].
        initial: theta_0 [d].
        num_steps: k.
        step_size: gamma.
        residual_scale: epsilon.
        noise_scale: sigma. Defaults to 0.
        batch_size: B. Defaults to 1.

    Returns:
        Arrays [d] and [d, d].

    Raises:
        ValueError: as `of_equation`.
    """
    values, vectors, offset, solution, source = _prepare(
        features, targets, initial, step_size, residual_scale, noise_scale, batch_size
    )
    num_steps = validation.count("num_steps", num_steps)
    factors = 1.0 - step_size * values
    mean = solution + vectors @ (factors**num_steps * offset)
    spread = step_size * source * np.sum(factors ** (2 * np.arange(num_steps)[:, None]), axis=0)
    return mean, (vectors * spread) @ vectors.T


def of_sampled_steps(features, targets, initial, num_steps, step_size, noise_scale=0.0, batch_size=1):
    """Mean and covariance after steps of SGD on B examples drawn with replacement, plus noise: exact, by recursion.

    The sampled gradient at theta has covariance (E[(x x^T delta + r x)(x x^T delta + r x)^T] - H delta delta^T H) / B,
    with delta = theta - theta_LS and r the residuals at theta_LS; its mean over the law of theta needs the first two
    moments only.

    Args:
        features: X [n, d].
        targets: Y [n].
        initial: theta_0 [d].
        num_steps: k.
        step_size: gamma.
        noise_scale: sigma = sqrt(gamma) s for N(0, s^2 I) added to the gradient. Defaults to 0.
        batch_size: B. Defaults to 1.

    Returns:
        Arrays [d] and [d, d].

    Raises:
        ValueError: as `of_equation`.
    """
    _, _, _, solution, _ = _prepare(features, targets, initial, step_size, 0.0, noise_scale, batch_size)
    features, targets = validation.design(features, targets)
    num_examples, dimension = features.shape
    curvature, residual = least_squares.hessian(features), features @ solution - targets
    contraction = np.eye(dimension) - step_size * curvature
    added = step_size * noise_scale**2 * np.eye(dimension)
    offset = np.asarray(initial, dtype=np.float64) - solution
    second = np.outer(offset, offset)
    for _ in range(validation.count("num_steps", num_steps)):
        # E over examples and theta of the squared residual, example by example.
        squares = (
            np.einsum("ni,ij,nj->n", features, second, features) + 2 * residual * (features @ offset) + residual**2
        )
        gradient_second = (features * squares[:, None]).T @ features / num_examples
        sampling = (gradient_second - curvature @ second @ curvature) / batch_size
        second = contraction @ second @ contraction + step_size**2 * sampling + added
        offset = contraction @ offset
    return solution + offset, second - np.outer(offset, offset)


def _prepare(features, targets, initial, step_size, residual_scale, noise_scale, batch_size):
    """Spectrum of H, the start in its eigenvectors, theta_LS, and the noise's variance along each eigenvector."""
    features, targets = validation.design(features, targets)
    initial = np.asarray(initial, dtype=np.float64)
    if initial.shape != features.shape[1:]:
        raise ValueError(f"`initial` must have shape {features.shape[1:]}. Received: shape={initial.shape}")
    step_size = float(checks.positive("step_size", step_size))
    sampling = step_size * float(checks.non_negative("residual_scale", residual_scale)) ** 2
    values, vectors = np.linalg.eigh(least_squares.hessian(features))
    values = np.maximum(values, 0.0)
    source = sampling / validation.count("batch_size", batch_size) * values
    source = source + float(checks.non_negative("noise_scale", noise_scale)) ** 2
    solution = least_squares.minimum_norm_solution(features, targets)
    return values, vectors, vectors.T @ (initial - solution), solution, source
