"""From the norms of per-example gradients to clip factors, and a sum that carries its bound.

Every example's gradient g is scaled so that its norm is at most C. So one example, added or removed, moves the sum by
at most C, the sum's L2 sensitivity:

    "flat"          g * min(1, C / ||g||)                Abadi et al. (2016), and eq. (2) of the paper
    "automatic"     g * C / (||g|| + 0.01)               AUTO-S of Bu et al. (2023)
    "normalized"    g * C / ||g||                        every example counts alike
    "per_layer"     g_l * min(1, C_l / ||g_l||)          layer by layer, with sum_l C_l^2 = C^2

    factors = clipping.flat(1.0)(tf.constant([0.5, 2.0]))    # [1.0, 0.5]
"""

import collections.abc
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from noisy_sgd import checks, keras_internals

CLIPPINGS = ("flat", "automatic", "normalized", "per_layer")

# The constant of AUTO-S, as its authors set it; it keeps small gradients from being scaled up without bound.
AUTOMATIC_STABILITY = 0.01

# Squares of coordinates below 1e-19 underflow in single precision. In a gradient whose norm is at most this, the lost
# coordinates could matter: scaled up to C by the norm that is seen, it could be longer than C.
SMALLEST_NORM = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipFunction:
    """How norms become clip factors, and what that bounds.

    Attributes:
        factors: norms [B] -> factors [B]; [B, layers] -> [B, layers] where `by_layer`. A norm that is not finite gets
            factor 0: such an example must contribute nothing, since no factor bounds it.
        l2_sensitivity: how far one example can move the clipped sum.
        by_layer: whether it takes the norms of each layer's part of the gradient. Defaults to False.
        with_remainder: whether the sum of what clipping takes away is wanted as well. Defaults to False.
        coordinates: coordinates(weights) -> one tensor of 0 and 1 per weight. Only coordinates with a 1 count: every
            example's gradient is multiplied by them before its norm is taken. Defaults to None, all coordinates.
    """

    factors: collections.abc.Callable[[tf.Tensor], tf.Tensor]
    l2_sensitivity: float | tf.Tensor
    by_layer: bool = False
    with_remainder: bool = False
    coordinates: collections.abc.Callable[[list], list[tf.Tensor]] | None = None

    def __call__(self, norms: tf.Tensor) -> tf.Tensor:
        """The factors of these norms."""
        return self.factors(norms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """A sum of clipped per-example gradients, with what one example can change in it.

    Attributes:
        values: sums over the batch, one tensor per trainable weight, in the order of `model.trainable_weights`.
        norms: [B], the L2 norm of each example's gradient before clipping; 0 for padding.
        l2_sensitivity: how far `values` moves, in L2 norm, when one example is added or removed; a number or a scalar.
        present: [B] bool, False for padding. Defaults to None, no padding.
        statistic: what the optimizer's mechanism sums over the examples beside their gradients, already summed.
            Defaults to None: the optimizer takes it from `norms`.
        remainder: the sums of what clipping took away, sum_i (g_i - clip(g_i)), one tensor per weight. One example can
            change them without bound. Defaults to None, not asked for.
    """

    values: list[tf.Tensor]
    norms: tf.Tensor
    l2_sensitivity: float | tf.Tensor
    present: tf.Tensor | None = None
    statistic: tf.Tensor | None = None
    remainder: list[tf.Tensor] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What an engine returns for one microbatch.

    Attributes:
        losses: [B], 0 for padding.
        predictions: the model's outputs, each [B, ...], the mean over an example's views.
        norms: [B], before clipping; 0 for padding, not finite where an example's gradient is not. None where nothing is
            clipped.
        values: sums of the clipped gradients, one tensor per trainable weight.
        remainder: the sums of what clipping took away; examples whose gradient is not finite are in neither. Defaults
            to None, not asked for.
    """

    losses: tf.Tensor
    predictions: Any
    norms: tf.Tensor | None
    values: list[tf.Tensor]
    remainder: list[tf.Tensor] | None = None


def clip_function(clipping, l2_norm_clip: float) -> ClipFunction:
    """The clip function that the argument `clipping` of the public functions stands for.

    Args:
        clipping: one of `CLIPPINGS`, or the bounds C_l of "per_layer", one per layer, in a list or an array.
        l2_norm_clip: C, positive; infinity for "flat" only.

    Returns:
        A clip function of sensitivity C.

    Raises:
        ValueError: for a name that is not known, or a bound out of range.
    """
    makers = {"flat": flat, "automatic": automatic, "normalized": normalized, "per_layer": per_layer}
    if isinstance(clipping, str) and clipping in makers:
        return makers[clipping](l2_norm_clip)
    clipping = bounds_as_tuple(clipping)
    if isinstance(clipping, tuple):
        return per_layer(l2_norm_clip, clipping)
    raise ValueError(
        f"`clipping` must be one of {list(CLIPPINGS)}, or a list of bounds, one per layer. "
        f"Received: clipping={clipping!r}"
    )


def bounds_as_tuple(clipping):
    """The argument `clipping` with a list's or an array's bounds as a tuple of Python's numbers, else as it is."""
    if isinstance(clipping, np.ndarray) and clipping.ndim == 1:
        clipping = clipping.tolist()
    if isinstance(clipping, list | tuple):
        return tuple(bound.item() if isinstance(bound, np.number) else bound for bound in clipping)
    return clipping


def check_norm_clip(l2_norm_clip: float) -> float:
    """The bound as a float; refuses what is not one positive number (infinity stands for no clipping)."""
    known = l2_norm_clip.numpy() if tf.is_tensor(l2_norm_clip) and hasattr(l2_norm_clip, "numpy") else l2_norm_clip
    number = known[()] if isinstance(known, np.ndarray) and known.ndim == 0 else known
    constraint = "must be positive, one number, infinity for no clipping"
    checks.require(checks.is_real(number) and number > 0, "l2_norm_clip", constraint, number)
    return float(number)


def flat(l2_norm_clip: float) -> ClipFunction:
    """Clip factors by one bound on the whole gradient (Abadi et al. 2016): min(1, C / ||g||).

    Args:
        l2_norm_clip: C, positive; infinity leaves every finite gradient as it is. A scalar tensor may be known only to
            a graph, which then checks it; where XLA drops the check, a bound that is not positive clips all to zero.

    Returns:
        A clip function of sensitivity C.

    Raises:
        ValueError: for a bound that is not positive.
    """
    if not tf.is_tensor(l2_norm_clip):
        return flat_at(check_norm_clip(l2_norm_clip))
    bound = tf.convert_to_tensor(l2_norm_clip)
    if bound.shape.rank not in (0, None) or hasattr(bound, "numpy"):
        check_norm_clip(bound)
        return flat_at(bound)
    positive = bound > 0
    message = "`l2_norm_clip` must be positive, one number, infinity for no clipping"
    with tf.control_dependencies([tf.debugging.Assert(positive, [message, bound])]):
        return flat_at(tf.where(positive, bound, tf.zeros_like(bound)))


def flat_at(bound: float | tf.Tensor) -> ClipFunction:
    """`flat` at a bound that is known to be positive."""
    return ClipFunction(factors=lambda norms: _zero_unless_finite(norms, _at_most(bound, norms)), l2_sensitivity=bound)


def automatic(l2_norm_clip: float) -> ClipFunction:
    """Clip factors C / (||g|| + 0.01) without a threshold (AUTO-S of Bu et al. 2023): C only scales the learning rate.

    Args:
        l2_norm_clip: C, positive and finite; gradients come out shorter than C.

    Returns:
        A clip function of sensitivity C.

    Raises:
        ValueError: for a bound that is not positive and finite.
    """
    bound = _check_finite("automatic", l2_norm_clip)
    return ClipFunction(
        factors=lambda norms: _zero_unless_finite(norms, bound / (norms + AUTOMATIC_STABILITY)), l2_sensitivity=bound
    )


def normalized(l2_norm_clip: float) -> ClipFunction:
    """Clip factors C / ||g||, by which every gradient is as long as C; one shorter than 1e-12 counts as zero.

    Args:
        l2_norm_clip: C, positive and finite.

    Returns:
        A clip function of sensitivity C.

    Raises:
        ValueError: for a bound that is not positive and finite.
    """
    bound = _check_finite("normalized", l2_norm_clip)

    def factors(norms):
        large = norms >= SMALLEST_NORM
        scale = tf.where(large, bound / tf.where(large, norms, tf.ones_like(norms)), tf.zeros_like(norms))
        return _zero_unless_finite(norms, scale)

    return ClipFunction(factors=factors, l2_sensitivity=bound)


def per_layer(l2_norm_clip: float, bounds: collections.abc.Sequence[float] | None = None) -> ClipFunction:
    """Clip factors layer by layer, each by its own bound (McMahan et al. 2018): min(1, C_l / ||g_l||).

    A layer is a Keras layer with trainable weights of its own, all of them together (kernel and bias). An example whose
    gradient is not finite in one layer contributes to none.

    Args:
        l2_norm_clip: C, positive and finite: the bound on the whole gradient, sqrt(sum_l C_l^2).
        bounds: C_l, positive, in the order in which the layers first appear in `model.trainable_weights`. Defaults to
            C / sqrt(number of layers) for each.

    Returns:
        A clip function of sensitivity C.

    Raises:
        ValueError: for a bound that is not positive and finite, or bounds that do not combine to C.
    """
    total = _check_finite("per_layer", l2_norm_clip)
    bounds = bounds_as_tuple(bounds)
    if bounds is not None:
        _check_bounds(bounds, total)

    def factors(norms):
        layers = norms.shape[1]
        if bounds is not None and len(bounds) != layers:
            raise ValueError(
                f"`clipping` must hold one bound for each of the model's {layers} layers with trainable weights. "
                f"Received: clipping={list(bounds)!r}"
            )
        own = [total / math.sqrt(layers)] * layers if bounds is None else list(bounds)
        finite = tf.reduce_all(tf.math.is_finite(norms), axis=1, keepdims=True)
        return tf.where(finite, _at_most(own, norms), tf.zeros_like(norms))

    return ClipFunction(factors=factors, l2_sensitivity=total, by_layer=True)


def _check_bounds(bounds, total):
    positive = all(checks.is_real(bound) and 0 < bound < math.inf for bound in bounds)
    root = math.hypot(*bounds) if positive else math.nan
    if not math.isclose(root, total, rel_tol=1e-6):
        raise ValueError(
            "`clipping` as a list must hold positive bounds whose root of the sum of squares is "
            f"l2_norm_clip={total}{f', and theirs is {root:.7g}' if positive else ''}. "
            f"Received: clipping={list(bounds)!r}"
        )


def wants_remainder(clip) -> bool:
    """Whether a clip function, which may be any function, asks for the sum of what clipping takes away."""
    return getattr(clip, "with_remainder", False)


def coordinates(clip) -> collections.abc.Callable[[list], list[tf.Tensor]] | None:
    """The coordinates that a clip function, which may be any function, restricts gradients to."""
    return getattr(clip, "coordinates", None)


def layers_of(model) -> dict[int, int]:
    """Which layer a trainable weight belongs to: {id(weight): index}, layers counted as they first appear."""
    owners = {}
    for layer in keras_internals.layers(model):
        for weight in keras_internals.own_weights(layer):
            owners.setdefault(id(weight), id(layer))
    order: dict[int, int] = {}
    return {id(w): order.setdefault(owners.get(id(w), id(w)), len(order)) for w in model.trainable_weights}


def norms_and_factors(clip, squares: list[tf.Tensor], layers: list[int], num_layers: int, present=None):
    """The norms of whole gradients, and the factor for each part of them.

    Args:
        clip: a `ClipFunction`, or any function from norms [B] to factors [B].
        squares: squared norms [B] of the parts of each example's gradient; at least one part.
        layers: which layer each part belongs to, in [0, num_layers).
        num_layers: how many layers with trainable weights the model has.
        present: [B], False for padding, which gets factor 0. Defaults to no padding.

    Returns:
        (norms [B], factors): one tensor [B] per part.
    """
    norms = tf.sqrt(tf.add_n(squares))
    if not getattr(clip, "by_layer", False):
        factors = clip(norms)
        if present is not None:
            factors = tf.where(present, factors, tf.zeros_like(factors))
        return norms, [factors] * len(squares)
    by_layer = [[] for _ in range(num_layers)]
    for square, layer in zip(squares, layers, strict=True):
        by_layer[layer].append(square)
    sums = [tf.add_n(parts) if parts else tf.zeros_like(norms) for parts in by_layer]
    factors = clip(tf.sqrt(tf.stack(sums, axis=1)))
    if present is not None:
        factors = tf.where(present[:, None], factors, tf.zeros_like(factors))
    return norms, [factors[:, layer] for layer in layers]


def _at_most(bound, norms: tf.Tensor) -> tf.Tensor:
    """min(1, bound / norm), and 1 for a norm of 0 or an infinite bound."""
    if isinstance(bound, float) and math.isinf(bound):
        return tf.ones_like(norms)
    bound = tf.cast(bound, norms.dtype) if tf.is_tensor(bound) else tf.constant(bound, norms.dtype)
    ratio = tf.math.divide_no_nan(bound, norms)
    return tf.where(norms > 0, tf.minimum(tf.ones_like(norms), ratio), tf.ones_like(norms))


def _zero_unless_finite(norms: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(norms), factors, tf.zeros_like(norms))


def _check_finite(clipping: str, l2_norm_clip: float) -> float:
    if tf.is_tensor(l2_norm_clip) and not hasattr(l2_norm_clip, "numpy"):
        raise ValueError(
            f'`l2_norm_clip` must be a number with clipping={clipping!r}; only clipping="flat" takes a tensor of a '
            f"graph. Received: l2_norm_clip={l2_norm_clip!r}"
        )
    bound = check_norm_clip(l2_norm_clip)
    if math.isinf(bound):
        raise ValueError(
            f"`l2_norm_clip` must be finite with clipping={clipping!r}, which scales gradients to it; only "
            f'clipping="flat" takes infinity. Received: l2_norm_clip={l2_norm_clip}'
        )
    return bound
