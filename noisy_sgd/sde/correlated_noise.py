"""Noise that is correlated over steps, xi_k = c_0 Z_k + c_1 Z_(k-1) + ..., in the equations of the paper.

*Diagonal linear networks.* In step k of eq. (18), w+- <- w+- (1 -+ a_k) with a_k = gamma r_i x_i - gamma sigma_k xi_k,
sigma_k = 2 sigma sqrt(L_k). Two things are exact for any sequence a_k, whatever its law:

    |w+ w-| = alpha^2 prod_k |1 - a_k^2|        1/4 ln|w+ / w-| = sum_k 1/4 ln|(1 - a_k) / (1 + a_k)|

The first is the effective alpha squared; it is the noise's quadratic variation, step by step. The second is the tilt
of Proposition 2, and to first order in a_k, where the gradients vanish under I - P, the noise's sum:

    r_inf = (I - P) sum_k gamma sigma sqrt(L_k) xi_k
          = (I - P) sum_m gamma sigma (c_0 sqrt(L_m) + c_1 sqrt(L_(m+1)) + ...) Z_m

Expanding the logarithm of the first, with E xi_k^2 = c_0^2 + c_1^2 + ..., gives eq. (21) with that variance in place of
1. This is exact as gamma goes to 0 and neglects two terms of higher order in gamma: those of a_k^4, and the
correlation of xi_k with L_k and r_i, which past draws moved by O(gamma). For given losses the variance of a coordinate
of r_inf before its projection is

    (gamma sigma)^2 sum_m (c_0 sqrt(L_m) + c_1 sqrt(L_(m+1)) + ...)^2

which tends to gamma sigma^2 (c_0 + c_1 + ...)^2 int L as gamma goes to 0: the losses of neighboring steps are then
equal. For c = (1, -lambda) the summand is ((1 - lambda) sqrt(L_m) + lambda (sqrt(L_m) - sqrt(L_(m+1))))^2. So for
lambda -> 1 the sum telescopes: what is left is due to the decay of the noise's scale alone. Observed, not proven, is
that the losses may be taken as given although they depend on the draws: the tests compare with simulations.

*Least squares.* theta <- (I - gamma H) theta - gamma s xi_k with constant s. In an eigenvector of H with eigenvalue h
and rho = 1 - gamma h, theta_k = -gamma s sum_m psi_m Z_(k-1-m) with psi_m = sum_{j <= min(m, q)} c_j rho^(m-j), and
psi_m = rho^(m-q) psi_q from the last coefficient c_q on. So for |rho| < 1 the limiting variance is exactly

    gamma^2 s^2 ( psi_0^2 + ... + psi_(q-1)^2 + psi_q^2 / (1 - rho^2) )

For c = (1, -lambda) this is gamma s^2 ((1 - lambda)^2 + 2 lambda gamma h) / (h (2 - gamma h)). With lambda = 1 it is
2 gamma^2 s^2 / (2 - gamma h), almost the same in all directions: the anisotropy H^-1 of eq. (15) vanishes.

    alphas = correlated_noise.effective_alpha(0.1, features, 0.1, 0.5, (1, -0.9), loss_integral=3.0)
    covariance = correlated_noise.stationary_covariance(features, 0.1, 1.0, 0.5, (1, -0.9))
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import diagonal_linear, least_squares


def effective_alpha(alpha, features, step_size, noise_scale, coefficients, loss_integral, batch_size=1):
    """Eq. (21) with the variance of one step: alpha exp(-2 gamma (diag(H) / B + sigma^2 sum c_j^2) int L).

    Args:
        alpha: scale of the initial weights, scalar or [d], positive.
        features: X [n, d].
        step_size: gamma.
        noise_scale: sigma, the scale of each draw; broadcasts against `loss_integral`.
        coefficients: c_0, c_1, ...
        loss_integral: int L dt; scalar or [...].
        batch_size: B. Defaults to 1.

    Returns:
        Array [..., d].

    Raises:
        ValueError: for an empty design or a number out of range.
    """
    per_step = checks.non_negative("noise_scale", noise_scale) * np.linalg.norm(_checked(coefficients))
    return diagonal_linear.effective_alpha(alpha, features, step_size, per_step, loss_integral, batch_size)


def tilt_variance(losses, step_size, noise_scale, coefficients):
    """Variance of each coordinate of sum_k gamma sigma sqrt(L_k) xi_k for given losses.

    Args:
        losses: L_k at which the steps are taken, [K, ...].
        step_size: gamma.
        noise_scale: sigma, the scale of each draw.
        coefficients: c_0, c_1, ...

    Returns:
        Array [...].

    Raises:
        ValueError: for a number out of range.
    """
    roots = np.sqrt(checks.non_negative("losses", losses))
    factors = np.zeros_like(roots)
    for lag, coefficient in enumerate(_checked(coefficients)[: len(roots)]):
        # No draw after the last step counts.
        factors[: len(roots) - lag] += coefficient * roots[lag:]
    scale = checks.positive("step_size", step_size) * checks.non_negative("noise_scale", noise_scale)
    return scale**2 * np.sum(factors**2, axis=0)


def tilt_variance_limit(step_size, noise_scale, coefficients, loss_integral):
    """What `tilt_variance` tends to for small steps: gamma sigma^2 (sum c_j)^2 int L.

    Args:
        step_size: gamma.
        noise_scale: sigma, the scale of each draw.
        coefficients: c_0, c_1, ...
        loss_integral: int L dt, scalar or [...].

    Returns:
        Array [...].

    Raises:
        ValueError: for a number out of range.
    """
    step_size, integral = checks.positive("step_size", step_size), checks.non_negative("loss_integral", loss_integral)
    return (
        step_size
        * checks.non_negative("noise_scale", noise_scale) ** 2
        * np.sum(_checked(coefficients)) ** 2
        * integral
    )


def stationary_covariance(features, step_size, residual_scale, noise_scale, coefficients, batch_size=1):
    """Limiting covariance of the steps of eq. (14) whose added noise is correlated; the sampling's is independent.

    Args:
        features: X [n, d] of rank d.
        step_size: gamma; below 2 / lambda_max.
        residual_scale: epsilon.
        noise_scale: sigma = sqrt(gamma) s, of each draw.
        coefficients: c_0, c_1, ...
        batch_size: B. Defaults to 1.

    Returns:
        Array [d, d].

    Raises:
        ValueError: for an empty or rank-deficient design, a number out of range, a step size beyond stability.
    """
    sampling = least_squares.stationary_covariance(
        features, step_size, residual_scale, 0.0, discrete=True, batch_size=batch_size
    )
    values, vectors = np.linalg.eigh(least_squares.hessian(features))
    decay = 1.0 - step_size * values
    weight, total = np.zeros_like(values), np.zeros_like(values)
    *earlier, last = _checked(coefficients)
    for coefficient in earlier:
        weight = decay * weight + coefficient
        total += weight**2
    weight = decay * weight + last
    total += weight**2 / (1.0 - decay**2)
    added = step_size * checks.non_negative("noise_scale", noise_scale) ** 2 * total
    return sampling + (vectors * added) @ vectors.T


def _checked(coefficients):
    values = np.asarray(coefficients, np.float64)
    holds = values.ndim == 1 and values.size > 0 and bool(np.isfinite(values).all())
    checks.require(holds, "coefficients", "must be finite, [q] with q at least 1", coefficients)
    return values
