"""Squared norms that were added up from terms of both signs, and what to do where rounding has eaten them.

A sum of inner products between positions, or a square less that of a projection, can be far smaller than its terms:
an example whose pixels lie far from 0, met by output gradients that add up to 0, has a squared norm that is a millionth
of them. What is then computed is rounding, and clipping by it would let the example through unclipped.

    squares = rounding.settled(squares, magnitude, exactly, setting, terms=positions)

A CPU forms the gradients of such examples one by one and squares them, which cancels nothing. An accelerator, where no
loop over examples may be, adds the most that rounding can have taken away: such an example is clipped as if its
gradient were longer than it is, never shorter.
"""

import collections.abc

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients.layer_rules import contributions

# Errors are a few units of rounding (the dtype's eps) of what was added up, whatever cancels: over layers of 4 to 256
# positions and offsets of 0 to 1e5 at most 8.0 on a CPU, and 7.0 in what XLA makes of it there. A squared norm of fewer
# units than this (1/16 of what was added up in float32) counts as lost: the norms of the others are right to 8e-6.
UNITS_LEFT = 2.0**19
# An accelerator's bound on the error is this and the number of positions.
UNITS_LOST = 16
# Where terms are no larger than this, norms are about 1e-12 at most, and nothing is formed on a CPU: most such examples
# are padding.
NEGLIGIBLE = 1e-25
FORMED_AT_ONCE = 4
# Sums of squares below this many times the smallest number may have lost terms that count as 0.
SMALLEST = {"cpu": 2.0**23, "accelerator": 2.0**40}


def settled(
    squares: tf.Tensor,
    magnitude: tf.Tensor,
    exactly: collections.abc.Callable[[tf.Tensor], tf.Tensor],
    setting: contributions.Setting,
    *,
    terms: int | None,
) -> tf.Tensor:
    """Squared norms none of which is smaller than its example's, but for float error.

    Args:
        squares: [units], as added up. One that is not a number stays so.
        magnitude: [units], the size of what was added up: for a sum over pairs of positions its diagonal.
        exactly: exactly(index of an example) -> its squared norm, a scalar, from its gradient.
        setting: the microbatch.
        terms: the number of positions, from which the most that rounding can do is estimated; None for many.

    Returns:
        Squared norms [units].
    """
    eps = float(np.finfo(setting.dtype.as_numpy_dtype).eps)
    lost = squares < UNITS_LEFT * eps * magnitude
    if setting.device != "cpu":
        worst = _unit_of_products(eps) * (UNITS_LOST + (1024 if terms is None else terms))
        return tf.where(lost, tf.abs(squares) + worst * magnitude, squares)
    indices = tf.where(lost & (magnitude > NEGLIGIBLE))

    def body(step, found):
        index = tf.slice(indices, [step, 0], [1, 1])
        square = exactly(tf.cast(tf.reshape(index, []), tf.int32))
        return step + 1, tf.tensor_scatter_nd_update(found, index, tf.reshape(square, [1]))

    count = tf.size(indices)
    _, found = tf.while_loop(
        lambda step, _: step < count,
        body,
        (tf.constant(0), tf.maximum(squares, 0.0)),
        parallel_iterations=FORMED_AT_ONCE,
    )
    return found


def _unit_of_products(eps):
    """The unit of rounding of an accelerator's matrix products, whose factors may be shorter numbers than the sums."""
    if eps < 1e-10:
        return eps
    if tf.config.list_logical_devices("TPU"):
        return 2.0**-8
    shortened = tf.config.experimental.tensor_float_32_execution_enabled()
    return 2.0**-11 if shortened and tf.config.list_logical_devices("GPU") else eps


def diagonal(inputs: tf.Tensor, gradients: tf.Tensor, setting: contributions.Setting) -> tf.Tensor:
    """[..., T, T] inner products of inputs and of output gradients -> their products' trace, [units].

    Squares so small that they may have become 0 count as more than they are: the other factor may be large.
    """
    smallest = float(np.finfo(setting.dtype.as_numpy_dtype).tiny) * SMALLEST[setting.device]
    smallest = tf.constant(smallest, setting.dtype)
    a, b = (tf.maximum(tf.raw_ops.MatrixDiagPart(input=one), smallest) for one in (inputs, gradients))
    return tf.reduce_sum(a * b, axis=list(range(1, a.shape.rank)))
