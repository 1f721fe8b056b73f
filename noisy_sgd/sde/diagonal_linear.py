"""Diagonal linear networks under SGD and Noisy-SGD: sections 3.3 and 4.2, appendix B.

beta = w+^2 - w-^2 from w+ = w- = alpha, with loss L = 1/(4n) sum_i (<beta, x_i> - y_i)^2 (the normalization under
which the paper's equations agree) and noise that vanishes with the loss, sigma_t = 2 sigma sqrt(L):

    discrete (18)   w+- <- w+- (1 -+ a),   a = gamma r_i x_i - gamma sigma_t Z
    equation (19)   d w+- = -+ [X-bar^T r] w+- dt +- 2 sqrt(gamma L) w+- [X-bar^T dB + sigma dB']

The invariant |w+ w-| = alpha^2 prod |1 - a^2| is the network's effective alpha squared; eq. (21) is its continuous
form. States are [..., 2, d], plus weights first.

    alphas = diagonal_linear.effective_alpha(0.1, features, step_size=0.1, noise_scale=0.5, loss_integral=3.0)
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import euler_maruyama, mirror_map, validation


def predictor(weights):
    """beta = w+^2 - w-^2.

    Args:
        weights: [..., 2, d].

    Returns:
        Array [..., d].
    """
    plus, minus = weights[..., 0, :], weights[..., 1, :]
    return (plus - minus) * (plus + minus)


def loss(beta, features, targets):
    """L(beta) = 1/(4n) sum_i (<beta, x_i> - y_i)^2.

    Args:
        beta: [..., d].
        features: X [n, d].
        targets: Y [n].

    Returns:
        Array [...].

    Raises:
        ValueError: for an empty design or targets of another length.
    """
    features, targets = validation.design(features, targets)
    return 0.25 * np.mean((beta @ features.T - targets) ** 2, axis=-1)


def relative_step(weights, features, targets, step_size, noise_scale, indices, normals):
    """a of eq. (18): gamma times the mean over the sampled examples of r_i x_i, less 2 gamma sigma sqrt(L) Z.

    Args:
        weights: [runs, 2, d].
        features: X [n, d].
        targets: Y [n].
        step_size: gamma, scalar or [runs].
        noise_scale: sigma, scalar or [runs].
        indices: sampled examples [runs, batch]; None for all of them (gradient descent).
        normals: Z [runs, d], or [runs, 2, d] for separate draws for plus and minus weights.

    Returns:
        Array of the shape of `normals`.

    Raises:
        ValueError: for an empty design or targets of another length.
    """
    features, targets = validation.design(features, targets)
    residual = predictor(weights) @ features.T - targets
    size = np.sqrt(0.25 * np.mean(residual**2, axis=-1))
    if indices is None:
        slope = residual @ features / len(features)
    else:
        picked = np.take_along_axis(residual, indices, axis=1)
        slope = np.mean(picked[..., None] * features[indices], axis=1)
    noise = 2.0 * np.asarray(noise_scale) * size
    if np.ndim(normals) == 3:
        slope, noise = slope[:, None, :], noise[:, None]
    step = slope - noise[..., None] * normals
    return np.reshape(step_size, (-1,) + (1,) * (np.ndim(step) - 1)) * step


def update(weights, relative):
    """Eq. (18) as a product: w+ (1 - a), w- (1 + a).

    Args:
        weights: [runs, 2, d].
        relative: a, [runs, d] or [runs, 2, d].

    Returns:
        Array [runs, 2, d].
    """
    if np.ndim(relative) == np.ndim(weights):
        plus, minus = relative[..., 0, :], relative[..., 1, :]
    else:
        plus = minus = relative
    return np.stack([weights[..., 0, :] * (1.0 - plus), weights[..., 1, :] * (1.0 + minus)], axis=-2)


def equation(features, targets, step_size, noise_scale=0.0, shared_noise=True):
    """Eq. (19) for weights [..., 2, d].

    The sampling noise enters both weights with one Brownian motion and opposite signs. So does the added noise where
    it is shared, as Lemma 1's proof needs; with independent noise the effective alpha keeps a random factor.

    Args:
        features: X [n, d].
        targets: Y [n].
        step_size: gamma.
        noise_scale: sigma. Defaults to 0: Pesme et al.'s equation.
        shared_noise: whether plus and minus weights share the added noise. Defaults to True.

    Returns:
        `euler_maruyama.Equation` with n + d Brownian motions, or n + 2d where the noise is not shared.

    Raises:
        ValueError: for an empty design or a number out of range.
    """
    features, targets = validation.design(features, targets)
    step_size = checks.positive("step_size", step_size)
    noise_scale = checks.non_negative("noise_scale", noise_scale)
    num_examples, dimension = features.shape
    root, levels = features / np.sqrt(num_examples), targets / np.sqrt(num_examples)
    signs = np.array([[1.0], [-1.0]])

    def drift(weights):
        slope = (predictor(weights) @ root.T - levels) @ root
        return -signs * slope[..., None, :] * weights

    def diffusion(weights, increment):
        # 2 sqrt(gamma L) with L = |r|^2 / 4.
        size = np.sqrt(step_size) * np.linalg.norm(predictor(weights) @ root.T - levels, axis=-1)
        sampling = (increment[..., :num_examples] @ root)[..., None, :]
        added = increment[..., num_examples:]
        added = added.reshape(*added.shape[:-1], -1, dimension)
        return signs * size[..., None, None] * weights * (sampling + noise_scale * added)

    return euler_maruyama.Equation(
        drift=drift, diffusion=diffusion, noise_dimension=num_examples + dimension * (1 if shared_noise else 2)
    )


def effective_alpha(alpha, features, step_size, noise_scale, loss_integral, batch_size=1):
    """Eq. (21), with eq. (10) as its case without noise: alpha exp(-2 gamma (diag(H) / B + sigma^2) int L).

    The batch size divides only the sampling's share, so that at fixed added noise smaller batches still shrink alpha
    more.

    Args:
        alpha: scale of the initial weights, scalar or [d], positive.
        features: X [n, d].
        step_size: gamma.
        noise_scale: sigma; broadcasts against `loss_integral`.
        loss_integral: int L dt, that is gamma times the sum of L over steps; scalar or [...].
        batch_size: B, examples drawn with replacement. Defaults to 1.

    Returns:
        Array [..., d].

    Raises:
        ValueError: for an empty design or a number out of range.
    """
    features = validation.design(features)
    alpha = validation.per_coordinate("alpha", alpha, features.shape[1])
    step_size = checks.positive("step_size", step_size)
    diagonal = np.mean(features**2, axis=0) / validation.count("batch_size", batch_size)
    noise = checks.non_negative("noise_scale", noise_scale)[..., None] ** 2
    integral = checks.non_negative("loss_integral", loss_integral)[..., None]
    return alpha * np.exp(-2.0 * step_size[..., None] * (diagonal + noise) * integral)


def effective_alpha_from_weights(weights):
    """sqrt|w+ w-|: what eq. (21) approximates, exact at any step size (at the paper's, weights change sign; beta does
    not see it).

    Args:
        weights: [..., 2, d].

    Returns:
        Array [..., d].
    """
    return np.sqrt(np.abs(weights[..., 0, :])) * np.sqrt(np.abs(weights[..., 1, :]))


def orthogonal_part(features, vectors):
    """(I - P) v, with P the projection on the span of the examples.

    Args:
        features: X [n, d].
        vectors: [..., d].

    Returns:
        Array [..., d].

    Raises:
        ValueError: for an empty design.
    """
    features = validation.design(features)
    left, singular, _ = np.linalg.svd(features.T, full_matrices=False)
    basis = left[:, singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps]
    return vectors - (vectors @ basis) @ basis.T


def discrete_tilt(weights, features):
    """The tilt for which Proposition 2 holds exactly at any step size, with alpha = sqrt|w+ w-|.

    (I - P) 1/4 ln|w+ / w-| = (I - P) [ r - 1/2 sum_t (1/2 ln|(1 + a_t) / (1 - a_t)| - a_t) ], r = sum_t gamma sigma
    sqrt(L_t) Z_t: the accumulated noise and what a step that is not infinitesimal adds to it.

    Args:
        weights: final weights [..., 2, d] of a path from w+ = w-.
        features: X [n, d].

    Returns:
        Array [..., d].

    Raises:
        ValueError: for an empty design.
    """
    ratio = np.log(np.abs(weights[..., 0, :])) - np.log(np.abs(weights[..., 1, :]))
    return orthogonal_part(features, 0.25 * ratio)


def effective_initialization(alpha, tilt):
    """Proposition 2's beta-tilde_0 = 2 alpha^2 sinh(4 r): the limit minimizes the Bregman divergence from there.

    Args:
        alpha: effective alpha, scalar or [d].
        tilt: r, [..., d].

    Returns:
        Array [..., d].

    Raises:
        ValueError: where alpha is not positive.
    """
    return mirror_map.inverse(tilt, alpha)


def effective_weights(alpha, tilt):
    """Weights from which gradient flow reaches Proposition 2's limit: alpha exp(+- 2 r).

    Args:
        alpha: effective alpha, scalar or [d].
        tilt: r, [..., d].

    Returns:
        Array [..., 2, d].

    Raises:
        ValueError: where alpha is not positive.
    """
    alpha, tilt = checks.positive("alpha", alpha), np.asarray(tilt, dtype=np.float64)
    return np.stack([alpha * np.exp(2.0 * tilt), alpha * np.exp(-2.0 * tilt)], axis=-2)


def strong_convexity(first, second, alpha):
    """Smallest eigenvalue of the potential's Hessian on the segment between two points: mu of Proposition 3.

    Args:
        first: [..., d].
        second: [..., d].
        alpha: scalar or [d].

    Returns:
        Array [...].

    Raises:
        ValueError: where alpha is not positive.
    """
    # |beta_i| is convex along the segment and the Hessian decreases in |beta_i|: the minimum is at an end.
    furthest = np.maximum(np.abs(first), np.abs(second))
    return np.min(mirror_map.hessian_diagonal(furthest, alpha), axis=-1)


def distance_bound(first, second, alpha, tilt):
    """Proposition 3's right-hand side: |tilt| / mu bounds |first - second| where the tilted and untilted problems have
    these minimizers.

    Args:
        first: the tilted problem's minimizer, [..., d].
        second: the untilted problem's, [..., d].
        alpha: effective alpha, scalar or [d].
        tilt: r, [..., d].

    Returns:
        Array [...].

    Raises:
        ValueError: where alpha is not positive.
    """
    return np.linalg.norm(tilt, axis=-1) / strong_convexity(first, second, alpha)
