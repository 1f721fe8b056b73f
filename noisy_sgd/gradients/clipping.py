"""From the norms of per-example gradients to clip factors, and a sum that carries its bound.

Abadi et al. (2016), and eq. (2) of the paper, scale the gradient g of every example to

    clip_C(g) = g * min(1, C / ||g||)

so that one example, added or removed, moves the sum by at most C: the sum's L2 sensitivity.

    factors = clipping.flat(1.0)(tf.constant([0.5, 2.0]))    # [1.0, 0.5]
"""

import collections.abc
import dataclasses
import math
from typing import Any

import tensorflow as tf

ClipFunction = collections.abc.Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """A sum of clipped per-example gradients, with what one example can change in it.

    Attributes:
        values: sums over the batch, one tensor a trainable weight, in the order of `model.trainable_weights`.
        norms: [B], the L2 norm of each example's gradient before clipping; 0 for padding.
        l2_sensitivity: how far `values` moves, in L2 norm, when one example is added or removed.
    """

    values: list[tf.Tensor]
    norms: tf.Tensor
    l2_sensitivity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What an engine returns for one microbatch.

    Attributes:
        losses: [B], 0 for padding.
        predictions: the model's outputs, each [B, ...].
        norms: [B], before clipping; 0 for padding, not finite where an example's gradient is not.
        values: sums of the clipped gradients, one tensor a trainable weight.
    """

    losses: tf.Tensor
    predictions: Any
    norms: tf.Tensor
    values: list[tf.Tensor]


def check_norm_clip(l2_norm_clip: float) -> float:
    """The bound as a float; refuses what is not a positive number (infinity stands for no clipping)."""
    value = float(l2_norm_clip)
    if math.isnan(value) or value <= 0:
        raise ValueError(
            f"`l2_norm_clip` must be positive, infinity for no clipping. Received: l2_norm_clip={l2_norm_clip}"
        )
    return value


def flat(l2_norm_clip: float) -> ClipFunction:
    """Clip factors by one bound on the whole gradient (Abadi et al. 2016).

    Args:
        l2_norm_clip: C, positive; infinity leaves every finite gradient as it is.

    Returns:
        A function from norms [B] to factors [B] in [0, 1]. A norm that is not finite gets factor 0: such an example
        must contribute nothing, since no factor bounds it.

    Raises:
        ValueError: for a bound that is not positive.
    """
    bound = check_norm_clip(l2_norm_clip)

    def factors(norms: tf.Tensor) -> tf.Tensor:
        scale = tf.ones_like(norms)
        if math.isfinite(bound):
            scale = tf.minimum(scale, tf.math.divide_no_nan(tf.cast(bound, norms.dtype), norms))
            scale = tf.where(norms > 0, scale, tf.ones_like(norms))
        return tf.where(tf.math.is_finite(norms), scale, tf.zeros_like(norms))

    return factors
