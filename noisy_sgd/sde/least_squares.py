"""Linear least squares under SGD and Noisy-SGD: section 3.2 and appendix A, with eq. (15) corrected.

With H = X^T X / n, residual scale epsilon, noise scale sigma, step size gamma and batch size B:

    under-parameterized (14)   d theta = -H (theta - theta_LS) dt + sqrt(gamma / B) epsilon X-bar^T dW + sigma dW'
    over-parameterized  (16)   d theta = -H (theta - theta_LS) dt + sqrt(gamma) |r| X-bar^T dB + sqrt(gamma) |r| sigma
    dB',  r = X-bar theta - Y-bar

The Lyapunov equation H S + S H = (gamma epsilon^2 / B) H + sigma^2 I gives the limiting covariance of (14),
(gamma epsilon^2 / 2B) I + (sigma^2 / 2) H^-1. The paper's eq. (15) prints sigma^2 / 4 there; `paper_eq15` keeps this
form for comparison. A step that adds N(0, s^2 I) to the gradient has sigma = sqrt(gamma) s.

    covariance = least_squares.stationary_covariance(features, step_size=0.1, residual_scale=1.0, noise_scale=0.5)
"""

import numpy as np
import scipy.linalg

from noisy_sgd import checks
from noisy_sgd.sde import euler_maruyama, validation


def hessian(features):
    """H = X^T X / n, [d, d].

    Args:
        features: X [n, d].

    Returns:
        Array [d, d].

    Raises:
        ValueError: for an empty design.
    """
    features = validation.design(features)
    return features.T @ features / len(features)


def minimum_norm_solution(features, targets):
    """theta_LS = X^+ Y: the least-squares solution of smallest l2 norm.

    Args:
        features: X [n, d].
        targets: Y [n].

    Returns:
        Array [d].

    Raises:
        ValueError: for an empty design or targets of another length.
    """
    features, targets = validation.design(features, targets)
    return np.linalg.lstsq(features, targets, rcond=None)[0]


def under_parameterized(
    features, targets, step_size, residual_scale, noise_scale=0.0, batch_size=1, modified_drift=False
):
    """Eq. (12), or with noise eq. (14), as an equation for theta [..., d] with n + d Brownian motions.

    Args:
        features: X [n, d].
        targets: Y [n].
        step_size: gamma.
        residual_scale: epsilon, the modelled size of a residual at the minimum.
        noise_scale: sigma. Defaults to 0: eq. (12).
        batch_size: B, which divides the sampling variance. Defaults to 1.
        modified_drift: whether to descend L + gamma/4 |grad L|^2, the drift of weak order 2 in gamma (Li, Tai and E
            2017), in place of L. Defaults to False.

    Returns:
        `euler_maruyama.Equation` with additive noise; the first n Brownian motions are the sampling's, the others the
        added noise's.

    Raises:
        ValueError: for an empty design or a number out of range.
    """
    features, targets = validation.design(features, targets)
    step_size = checks.positive("step_size", step_size)
    noise_scale = checks.non_negative("noise_scale", noise_scale)
    sampling_scale = np.sqrt(step_size / validation.count("batch_size", batch_size)) * checks.non_negative(
        "residual_scale", residual_scale
    )
    num_examples, dimension = features.shape
    root = features / np.sqrt(num_examples)
    descent = hessian(features)
    if modified_drift:
        descent = descent + 0.5 * step_size * descent @ descent
    solution = minimum_norm_solution(features, targets)

    def drift(theta):
        return -(theta - solution) @ descent

    def diffusion(theta, increment):
        del theta
        sampling, added = increment[..., :num_examples], increment[..., num_examples:]
        return sampling_scale * (sampling @ root) + noise_scale * added

    return euler_maruyama.Equation(
        drift=drift, diffusion=diffusion, noise_dimension=num_examples + dimension, additive=True
    )


def over_parameterized(features, targets, step_size, noise_scale=0.0):
    """Eq. (16), or with noise its noisy form, as an equation for theta [..., d] with n + d Brownian motions.

    Args:
        features: X [n, d].
        targets: Y [n].
        step_size: gamma.
        noise_scale: sigma, a scalar or an array that broadcasts against theta: [[0], [0.5]] with theta [..., 2, d] and
            increments [..., 1, n + d] is Theorem 1's pair of paths on one Brownian motion. Defaults to 0.

    Returns:
        `euler_maruyama.Equation`; the first n Brownian motions are the sampling's, the others the added noise's.

    Raises:
        ValueError: for an empty design or a number out of range.
    """
    features, targets = validation.design(features, targets)
    scale = np.sqrt(checks.positive("step_size", step_size))
    noise_scale = checks.non_negative("noise_scale", noise_scale)
    num_examples, dimension = features.shape
    root, levels = features / np.sqrt(num_examples), targets / np.sqrt(num_examples)

    def drift(theta):
        return -(theta @ root.T - levels) @ root

    def diffusion(theta, increment):
        size = scale * np.linalg.norm(theta @ root.T - levels, axis=-1, keepdims=True)
        sampling, added = increment[..., :num_examples], increment[..., num_examples:]
        return size * (sampling @ root + noise_scale * added)

    return euler_maruyama.Equation(drift=drift, diffusion=diffusion, noise_dimension=num_examples + dimension)


def stationary_covariance(features, step_size, residual_scale, noise_scale, discrete=False, batch_size=1):
    """Limiting covariance of eq. (14), or of its Euler steps, in closed form.

    (gamma epsilon^2 / 2B) I + (sigma^2 / 2) H^-1; for steps of size gamma, in an eigenvector of H with eigenvalue h,
    (gamma epsilon^2 h / B + sigma^2) / (2 h - gamma h^2).

    Args:
        features: X [n, d] of rank d.
        step_size: gamma; below 2 / lambda_max where `discrete`.
        residual_scale: epsilon.
        noise_scale: sigma.
        discrete: whether to give the law of the steps, not of the equation. Defaults to False.
        batch_size: B. Defaults to 1.

    Returns:
        Array [d, d].

    Raises:
        ValueError: for an empty or rank-deficient design, a number out of range, a step size beyond stability.
    """
    values, vectors = _spectrum(features)
    sampling, added = _noise_variances(step_size, residual_scale, noise_scale, batch_size)
    rate = 2.0 * values
    if discrete:
        _check_stable(step_size, values)
        rate = rate - step_size * values**2
    return (vectors * ((sampling * values + added) / rate)) @ vectors.T


def paper_eq15(features, step_size, residual_scale, noise_scale, batch_size=1):
    """The covariance as the paper prints it, (gamma epsilon^2 / 2B) I + (sigma^2 / 4) H^-1: half of the noise's share
    is missing.

    Args:
        features: X [n, d] of rank d.
        step_size: gamma.
        residual_scale: epsilon.
        noise_scale: sigma.
        batch_size: B. Defaults to 1.

    Returns:
        Array [d, d].

    Raises:
        ValueError: as `stationary_covariance`.
    """
    values, vectors = _spectrum(features)
    sampling, added = _noise_variances(step_size, residual_scale, noise_scale, batch_size)
    return (vectors * (0.5 * sampling + 0.25 * added / values)) @ vectors.T


def lyapunov_covariance(features, step_size, residual_scale, noise_scale, discrete=False, batch_size=1):
    """The same covariance from SciPy's solvers, independent of the closed form.

    H S + S H = Q, or for the steps S = (I - gamma H) S (I - gamma H) + gamma Q, with Q = (gamma epsilon^2 / B) H +
    sigma^2 I.

    Args:
        features: X [n, d] of rank d.
        step_size: gamma; below 2 / lambda_max where `discrete`.
        residual_scale: epsilon.
        noise_scale: sigma.
        discrete: whether to give the law of the steps. Defaults to False.
        batch_size: B. Defaults to 1.

    Returns:
        Array [d, d].

    Raises:
        ValueError: as `stationary_covariance`.
    """
    values, _ = _spectrum(features)
    sampling, added = _noise_variances(step_size, residual_scale, noise_scale, batch_size)
    curvature = hessian(features)
    source = sampling * curvature + added * np.eye(len(curvature))
    if not discrete:
        return scipy.linalg.solve_continuous_lyapunov(curvature, source)
    _check_stable(step_size, values)
    return scipy.linalg.solve_discrete_lyapunov(np.eye(len(curvature)) - step_size * curvature, step_size * source)


def sampled_covariance(features, targets, step_size, noise_scale=0.0, batch_size=1):
    """Exact limiting covariance of SGD with real sampling (B examples with replacement) and added noise, by its fourth
    moments.

    S = (I - gamma H) S (I - gamma H) + gamma^2 (E[r^2 x x^T] + E[x x^T S x x^T] - H S H) / B + gamma sigma^2 I, r =
    <theta_LS, x> - y. Unlike the modelled noise, the true one is larger along examples with large residuals and grows
    with the distance to the minimum.

    Args:
        features: X [n, d] of rank d.
        targets: Y [n].
        step_size: gamma.
        noise_scale: sigma = sqrt(gamma) s for N(0, s^2 I) added to the gradient. Defaults to 0.
        batch_size: B. Defaults to 1.

    Returns:
        Array [d, d].

    Raises:
        ValueError: for an empty or rank-deficient design, a number out of range, a step size at which second moments
            grow.
    """
    features, targets = validation.design(features, targets)
    _spectrum(features)
    step_size = float(checks.positive("step_size", step_size))
    added = step_size * checks.non_negative("noise_scale", noise_scale) ** 2
    share = step_size**2 / validation.count("batch_size", batch_size)
    num_examples, dimension = features.shape
    curvature = hessian(features)
    residual = features @ minimum_norm_solution(features, targets) - targets
    identity = np.eye(dimension)
    contraction = identity - step_size * curvature
    squares = np.einsum("ni,nj->nij", features, features).reshape(num_examples, -1)
    transition = np.kron(contraction, contraction) + share * (
        squares.T @ squares / num_examples - np.kron(curvature, curvature)
    )
    source = share * (residual**2 @ squares) / num_examples + added * identity.ravel()
    solution = np.linalg.solve(np.eye(dimension**2) - transition, np.stack([source, identity.ravel()], axis=1))
    covariance, probe = solution.T.reshape(2, dimension, dimension)
    # A positive map has spectral radius below 1 exactly if S = T(S) + I has a positive solution.
    if np.linalg.eigvalsh(0.5 * (probe + probe.T))[0] <= 0:
        raise ValueError(
            "`step_size` must keep second moments bounded under sampling; take a smaller one or a larger `batch_size`. "
            f"Received: step_size={step_size}, batch_size={batch_size}"
        )
    return 0.5 * (covariance + covariance.T)


def distance_bound(features, step_size, noise_scale, residual_integral):
    """Theorem 1's right-hand side, gamma d sigma^2 int_0^t |X-bar beta_s - Y-bar|^2 ds, beta being the noisy path.

    The paper omits the expectation on this side. The caller takes it: E|theta_t - beta_t|^2 is at most E of this.

    Args:
        features: X [n, d].
        step_size: gamma, at most 2 / Tr(H) (appendix A's condition; the main text's 1 / Tr(H) is stricter than the
            proof needs).
        noise_scale: sigma.
        residual_integral: the integral of the squared normalized residual, twice eq. (7)'s loss; any shape.

    Returns:
        Array of the integral's shape.

    Raises:
        ValueError: for an empty design, a number out of range, a step size above 2 / Tr(H).
    """
    features = validation.design(features)
    trace = np.sum(features**2) / len(features)
    step_size = float(checks.positive("step_size", step_size))
    if step_size > 2.0 / trace:
        raise ValueError(f"`step_size` must be at most 2 / Tr(H) = {2.0 / trace:.6g}. Received: step_size={step_size}")
    noise_scale = checks.non_negative("noise_scale", noise_scale)
    integral = checks.non_negative("residual_integral", residual_integral)
    return step_size * features.shape[1] * noise_scale**2 * integral


def _noise_variances(step_size, residual_scale, noise_scale, batch_size):
    """gamma epsilon^2 / B, which multiplies H, and sigma^2, which multiplies I."""
    step_size = float(checks.positive("step_size", step_size))
    sampling = step_size * float(checks.non_negative("residual_scale", residual_scale)) ** 2
    sampling /= validation.count("batch_size", batch_size)
    return sampling, float(checks.non_negative("noise_scale", noise_scale)) ** 2


def _spectrum(features):
    values, vectors = np.linalg.eigh(hessian(features))
    if values[0] <= values[-1] * len(values) * np.finfo(np.float64).eps:
        raise ValueError(
            "`features` must have full column rank (n >= d) for a stationary law. "
            f"Received: shape={np.shape(features)}, smallest eigenvalue of H={values[0]:.3g}"
        )
    return values, vectors


def _check_stable(step_size, values):
    if not step_size < 2.0 / values[-1]:
        raise ValueError(
            f"`step_size` must be below 2 / lambda_max = {2.0 / values[-1]:.6g} for a stationary law. "
            f"Received: step_size={step_size}"
        )
