"""Diagonal linear networks of depth D > 2, beta = w+^D - w-^D from w+ = w- = alpha: beyond the paper.

Noise enters as the sampling noise does. One example's gradient with respect to beta is r_i x_i / 2, and reaches the
weights through the Jacobian of beta, +- D w+-^(D-1); so does noise of standard deviation sigma |r| / sqrt(n) added to
r_i x_i:

    w+- <- w+- -+ D/2 a w+-^(D-1),    a = gamma r_i x_i - gamma sigma |r| / sqrt(n) Z,

which for D = 2 is eq. (18). In the limit of small steps, with dA = grad L(beta) 2 dt - noise and its variance per time
v = 4 gamma L (diag(X^T X) / n + sigma^2), Ito's formula gives

    d (w+^(2-D) - w-^(2-D)) = D (D-2) dA + D^2 (D-1) (D-2) / 8 (w+^(D-2) - w-^(D-2)) v dt
    d (w+^(2-D) + w-^(2-D)) =              D^2 (D-1) (D-2) / 8 (w+^(D-2) + w-^(D-2)) v dt.

The sum is 2 alpha^(2-D) under gradient flow. Under noise it grows, without a martingale, just as w+ w- shrinks at depth
2: the corresponding alpha becomes smaller. Where beta is near 0,

    d ln(alpha) = - D^2 (D-1) / 8 alpha^(2D-4) v dt.

At depth 2 this is eq. (21), whatever alpha is. Deeper networks lose less of a smaller alpha, while the difference,
whose part outside the span of the examples is the tilt, still takes the noise in full.

    alphas = deep_diagonal.effective_alpha(weights, depth=3)
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import diagonal_linear, validation


def effective_alpha(weights, depth):
    """((|w+|^(2-D) + |w-|^(2-D)) / 2)^(1 / (2-D)): the alpha from which gradient flow could pass through these weights.

    Args:
        weights: [..., 2, d], without zeros.
        depth: D; 2 is sqrt|w+ w-|, the limit D -> 2.

    Returns:
        Array [..., d].

    Raises:
        ValueError: for a depth below 2.
    """
    depth = _depth(depth)
    if depth == 2:
        return diagonal_linear.effective_alpha_from_weights(weights)
    # Relative to the smaller weight, whose power is the larger: no overflow.
    sizes = np.abs(weights)
    smaller = np.min(sizes, axis=-2)
    return smaller * np.mean((smaller[..., None, :] / sizes) ** (depth - 2), axis=-2) ** (1.0 / (2 - depth))


def predicted_alpha(alpha, features, step_size, noise_scale, loss_integral, depth, batch_size=1):
    """Eq. (21) at any depth, for coordinates whose beta stays near 0.

    (alpha^-q + q D^2 (D-1) / 2 gamma (diag(H) / B + sigma^2) int L)^(-1/q), q = 2D - 4; at D = 2 its limit, eq. (21).

    Args:
        alpha: scale of the initial weights.
        features: X [n, d].
        step_size: gamma.
        noise_scale: sigma.
        loss_integral: int L dt, that is gamma times the sum of L over steps; scalar or [...].
        depth: D.
        batch_size: B, examples drawn with replacement. Defaults to 1.

    Returns:
        Array [..., d].

    Raises:
        ValueError: for a depth below 2, an empty design or a number out of range.
    """
    depth = _depth(depth)
    paper = diagonal_linear.effective_alpha(alpha, features, step_size, noise_scale, loss_integral, batch_size)
    if depth == 2:
        return paper
    power = 2.0 * depth - 4.0
    # Eq. (21)'s logarithm is - 2 gamma (...) int L.
    growth = power * depth**2 * (depth - 1) / 4.0 * np.log(alpha / paper)
    return (alpha**-power + growth) ** (-1.0 / power)


def tilt(weights, features, depth):
    """Half the mirror coordinate's part orthogonal to the examples: 0 under gradient flow, r of Proposition 2 at D = 2.

    (I - P) (|w-|^(2-D) - |w+|^(2-D)) / (2 D (D-2)), whose limit D -> 2 is (I - P) 1/4 ln|w+ / w-|.

    Args:
        weights: [..., 2, d], without zeros.
        features: X [n, d].
        depth: D.

    Returns:
        Array [..., d], in units of alpha^(2-D).

    Raises:
        ValueError: for a depth below 2 or an empty design.
    """
    depth = _depth(depth)
    if depth == 2:
        return diagonal_linear.discrete_tilt(weights, features)
    powers = np.abs(weights) ** (2.0 - depth)
    mirror = (powers[..., 1, :] - powers[..., 0, :]) / (2.0 * depth * (depth - 2))
    return diagonal_linear.orthogonal_part(features, mirror)


def _depth(depth):
    depth = validation.count("depth", depth)
    checks.at_least("depth", depth, 2)
    return depth
