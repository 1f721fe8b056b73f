"""The hyperbolic entropy of eq. (8), the mirror map under which a diagonal linear network descends.

    phi_alpha(beta) = 1/4 sum_i [ beta_i arcsinh(beta_i / (2 alpha_i^2)) - sqrt(beta_i^2 + 4 alpha_i^4) ]

Gradient flow from w+ = w- = alpha ends at argmin {phi_alpha(beta) : X beta = Y} (Woodworth et al. 2020): close to the
smallest l2 norm for large alpha, to the smallest l1 norm for small alpha. Noise tilts the objective by a vector
(Proposition 2), and changes the minimizer:

    beta = mirror_map.minimizer(features, targets, alpha=0.1)
    moved = mirror_map.minimizer(features, targets, alpha=0.1, tilt=accumulated_noise)
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import validation

_TOLERANCE = 1e-11
_MAX_NEWTON_STEPS = 500
# Newton's step is cut so that no argument of sinh moves further than this at once: beyond it the quadratic model is
# not valid.
_MAX_MOVE = 4.0


def potential(beta, alpha):
    """phi_alpha(beta), eq. (8).

    Args:
        beta: [..., d].
        alpha: scale of the initial weights, scalar or [d], positive.

    Returns:
        Array [...], summed over coordinates.

    Raises:
        ValueError: where alpha is not positive.
    """
    beta, square = np.asarray(beta, dtype=np.float64), 2.0 * checks.positive("alpha", alpha) ** 2
    return 0.25 * np.sum(beta * np.arcsinh(beta / square) - np.hypot(beta, square), axis=-1)


def gradient(beta, alpha):
    """grad phi_alpha(beta) = 1/4 arcsinh(beta / (2 alpha^2)), coordinate by coordinate.

    Args:
        beta: [..., d].
        alpha: scalar or [d], positive.

    Returns:
        Array [..., d].

    Raises:
        ValueError: where alpha is not positive.
    """
    square = 2.0 * checks.positive("alpha", alpha) ** 2
    return 0.25 * np.arcsinh(np.asarray(beta, dtype=np.float64) / square)


def inverse(dual, alpha):
    """The inverse of `gradient`: 2 alpha^2 sinh(4 u).

    Args:
        dual: u, [..., d].
        alpha: scalar or [d], positive.

    Returns:
        Array [..., d].

    Raises:
        ValueError: where alpha is not positive.
    """
    square = 2.0 * checks.positive("alpha", alpha) ** 2
    return square * np.sinh(4.0 * np.asarray(dual, dtype=np.float64))


def hessian_diagonal(beta, alpha):
    """The (diagonal) Hessian of the potential, 1 / (4 sqrt(beta^2 + 4 alpha^4)).

    Args:
        beta: [..., d].
        alpha: scalar or [d], positive.

    Returns:
        Array [..., d].

    Raises:
        ValueError: where alpha is not positive.
    """
    square = 2.0 * checks.positive("alpha", alpha) ** 2
    return 0.25 / np.hypot(np.asarray(beta, dtype=np.float64), square)


def bregman_divergence(beta, reference, alpha):
    """D_phi(beta, reference) = phi(beta) - phi(reference) - <grad phi(reference), beta - reference>.

    Args:
        beta: [..., d].
        reference: [..., d].
        alpha: scalar or [d], positive.

    Returns:
        Array [...], at least 0 up to rounding.

    Raises:
        ValueError: where alpha is not positive.
    """
    difference = np.asarray(beta, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    linear = np.sum(gradient(reference, alpha) * difference, axis=-1)
    return potential(beta, alpha) - potential(reference, alpha) - linear


def minimizer(features, targets, alpha, tilt=None):
    """argmin { phi_alpha(beta) - <tilt, beta> : features beta = targets }, by damped Newton on the dual.

    The minimizer is beta = 2 alpha^2 sinh(4 (X^T lambda + tilt)) for the lambda that maximizes the concave function
    <lambda, Y> - 1/2 sum_j alpha_j^2 cosh(4 (X^T lambda + tilt)_j). An orthonormal basis of the rows replaces X, which
    keeps the constraint and allows repeated rows. The tilt's component in the span of the rows has no effect and is
    dropped.

    Args:
        features: X [n, d] as given (the paper's X-bar is X / sqrt(n); the minimizer does not depend on it).
        targets: Y [n], in the range of X.
        alpha: scalar or [d], positive.
        tilt: r of Proposition 2, [d]. Defaults to None: no tilt.

    Returns:
        beta [d]; in the orthonormal basis the constraint holds to 1e-11 of the norm of beta.

    Raises:
        ValueError: for an empty design, a negative alpha, a tilt of another shape, targets that no beta interpolates.
    """
    features, targets = validation.design(features, targets)
    dimension = features.shape[1]
    square = validation.per_coordinate("alpha", alpha, dimension) ** 2
    tilt = np.zeros(dimension) if tilt is None else np.asarray(tilt, dtype=np.float64)
    if tilt.shape != (dimension,) or not np.isfinite(tilt).all():
        raise ValueError(
            f"`tilt` must be a finite vector of shape ({dimension},). Received: shape={tilt.shape}, tilt={tilt}"
        )
    rows, levels = _orthonormal_constraints(features, targets)
    tilt = tilt - rows.T @ (rows @ tilt)
    return _newton(rows, levels, square, tilt)


def _orthonormal_constraints(features, targets):
    """Rows with orthonormal span and levels, so that {X beta = Y} = {rows beta = levels}."""
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    rank = int(np.sum(singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps))
    levels = left[:, :rank].T @ targets
    unexplained = np.linalg.norm(targets - left[:, :rank] @ levels)
    if rank == 0 or unexplained > 1e-9 * max(np.linalg.norm(targets), np.finfo(np.float64).tiny):
        raise ValueError(
            "`targets` must be interpolable, that is in the range of `features`. "
            f"Received: rank={rank}, distance from the range={unexplained:.3g}"
        )
    return right[:rank], levels / singular[:rank]


def _newton(rows, levels, square, tilt):
    multipliers = np.zeros(len(levels))
    best, best_residual, tolerance = None, np.inf, 0.0
    for _ in range(_MAX_NEWTON_STEPS):
        argument = 4.0 * (rows.T @ multipliers + tilt)
        beta = 2.0 * square * np.sinh(argument)
        residual = levels - rows @ beta
        size = np.linalg.norm(residual)
        if size < best_residual:
            best, best_residual, tolerance = beta, size, _TOLERANCE * np.linalg.norm(beta)
        elif best_residual <= tolerance:
            return best
        curvature = (rows * (8.0 * square * np.cosh(argument))) @ rows.T
        step = np.linalg.solve(curvature, residual)
        multipliers = multipliers + _damping(rows, levels, square, argument, step) * step
    if best_residual <= tolerance:
        return best
    raise ValueError(
        "`alpha` and `tilt` must keep the dual within the range of float64: Newton stopped at a residual of "
        f"{best_residual:.3g}. Received: alpha**2 in [{square.min():.3g}, {square.max():.3g}], "
        f"largest tilt={np.abs(tilt).max():.3g}"
    )


def _damping(rows, levels, square, argument, step):
    """The longest of 1, 1/2, 1/4, ... that keeps half of the first-order gain, started where sinh does not overflow."""
    move = 4.0 * (rows.T @ step)
    slope = step @ levels - np.sum(2.0 * square * np.sinh(argument) * (rows.T @ step))
    fraction = _MAX_MOVE / max(np.abs(move).max(), _MAX_MOVE)
    for _ in range(60):
        # cosh(a + m) - cosh(a) = 2 sinh(a + m/2) sinh(m/2): no cancellation near the optimum.
        half = 0.5 * fraction * move
        gain = fraction * (step @ levels) - np.sum(square * np.sinh(argument + half) * np.sinh(half))
        if gain >= 0.25 * fraction * slope or fraction * slope <= 1e-14 * abs(step @ levels):
            return fraction
        fraction *= 0.5
    return fraction
