"""Where rounding would let an example's clipped gradient be longer than C, and what to do about such examples.

A norm and a sum over examples that are computed from inputs a_t and output gradients b_t, t = 1..T, never meet the
gradient g = sum_t a_t b_t^T of an example itself. Where its terms cancel, as those of an image of one color under
output gradients of both signs, both lose digits, and not the same ones:

    the norm    ||g||^2 = sum_{s,t} <a_s, a_t> <b_s, b_t>    an eps of the sum of the terms' absolute values
    the sum     sum_i c_i g_i, by one matrix product         an eps of |a_t| |b_t|, and at each addition an eps of the
                                                             running sum P_t = sum_{s<=t} a_s b_s^T, always to the same
                                                             side where the terms are alike

    squares, apart = rounding.settled(squares, sizes, exactly, setting)
    totals = rounding.with_those_apart(totals, factors, apart, form)

A CPU forms the gradients of such examples one by one: norm and sum come from the same numbers, and what they add to the
sum is as long as their factor says. An accelerator, where no loop over examples may be, adds to the norm the most that
rounding can have done: such an example is clipped as if its gradient were longer than it is, never shorter.
"""

import collections.abc
import contextlib
import dataclasses
import math
import threading
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients.layer_rules.shared import contributions

# What counts as lost: a norm, or a sum, that may be wrong by this much of the gradient.
TOLERANCE = 1e-5
# Squared norms have errors of up to 3 eps of their terms' absolute values beside those of the inner products, as found
# by trying to make them large.
UNITS_LOST = 4
# Rounding loses on average a quarter of an eps of the running sum at an addition, where it always goes to one side.
LOST_AT_A_STEP = 0.25
# Terms of random directions have a running sum of |g| / 1.5 on average, however many they are, and then nothing is
# lost to one side: what the number of terms allows is not taken for more than this, in units of `TOLERANCE`.
MOST_OF_RUNNING_SUM = 0.7
# The same where the running sum is not known, times sqrt(T): random terms have |g| = sum_t |a_t| |b_t| / sqrt(T).
MOST_OF_LENGTHS = 2.0
# Running sums are looked at so often.
MARKS = 16
# Where terms are no larger than this, norms are about 1e-12 at most, and nothing is formed on a CPU: most such examples
# are padding.
NEGLIGIBLE = 1e-25
FORMED_AT_ONCE = 4
# Sums of squares below this many times the smallest number may have lost terms that count as 0.
SMALLEST = {"cpu": 2.0**23, "accelerator": 2.0**40}
# Where the trace does not know the number of positions.
ASSUMED_POSITIONS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the norm and the sum of each example are added up from, all [units].

    Attributes:
        terms: the sum of the absolute values of what the squared norm was added up from.
        lengths: sum_t |a_t| |b_t|.
        running: the mean over t of |P_t|; at most `lengths` / 4 where g is short. None where it is not known.
        positions: T; None where the trace does not know it.
        units: the error of the terms that goes to one side, in eps of each. Defaults to 0.
    """

    terms: tf.Tensor
    lengths: tf.Tensor
    running: tf.Tensor | None
    positions: int | None
    units: tf.Tensor | float = 0.0


def settled(
    squares: tf.Tensor,
    sizes: Sizes,
    exactly: collections.abc.Callable[[tf.Tensor], tf.Tensor],
    setting: contributions.Setting,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Squared norms by which no example's part of the sum becomes longer than its bound, but for float error.

    Args:
        squares: [units], as added up. One that is not a number stays so.
        sizes: what they were added up from.
        exactly: exactly(index of an example) -> its squared norm, a scalar, from its gradient.
        setting: the microbatch.

    Returns:
        Squared norms [units], and the indices [n, 1] of the examples whose gradients the sum must take from where
        `exactly` does; None on an accelerator, where there are none.
    """
    eps = float(np.finfo(setting.dtype.as_numpy_dtype).eps)
    positions = ASSUMED_POSITIONS if sizes.positions is None else sizes.positions
    running, most = sizes.running, MOST_OF_RUNNING_SUM
    if running is None:
        running, most = sizes.lengths / 4, MOST_OF_LENGTHS / math.sqrt(positions)
    of_running = eps * LOST_AT_A_STEP * positions
    units = eps * (UNITS_LOST + sizes.units)
    lost = 2 * TOLERANCE * squares < units * sizes.terms
    error = min(of_running / TOLERANCE, most) * running + eps / TOLERANCE * sizes.lengths
    positive = tf.maximum(squares, 0.0)
    lost_in_sum = tf.sqrt(positive) < error
    if setting.device != "cpu":
        unit = _unit_of_products(eps)
        longer = tf.where(lost, tf.abs(squares) + (unit * UNITS_LOST + units) * sizes.terms, squares)
        norm = tf.sqrt(longer) + of_running * running + unit * sizes.lengths
        return tf.where(lost | lost_in_sum, tf.square(norm), squares), None
    apart = tf.where((lost | lost_in_sum) & (sizes.terms > NEGLIGIBLE))

    def body(step, found):
        index = tf.gather(apart, step)
        square = tf.reshape(exactly(tf.squeeze(tf.cast(index, tf.int32), 0)), [1])
        return step + 1, tf.tensor_scatter_nd_update(found, tf.expand_dims(index, 0), square)

    count = tf.size(apart)
    _, found = tf.while_loop(
        lambda step, _: step < count,
        body,
        (tf.constant(0), positive),
        parallel_iterations=FORMED_AT_ONCE,
    )
    return found, apart


def without_those_apart(factors: tf.Tensor, apart: tf.Tensor | None) -> tf.Tensor:
    """The factors [units], 0 for the examples that `with_those_apart` adds."""
    if apart is None:
        return factors
    return tf.tensor_scatter_nd_update(factors, apart, tf.zeros([tf.size(apart)], factors.dtype))


def with_those_apart(
    totals: list[tf.Tensor],
    factors: tf.Tensor,
    apart: tf.Tensor | None,
    form: collections.abc.Callable[[tf.Tensor], list[tf.Tensor]],
) -> list[tf.Tensor]:
    """The sums over the other examples, and over those apart of factor times gradient.

    Within `in_one_loop` these are the sums over the others alone; what is missing is added at its end.

    Args:
        totals: the sums over the others, one per weight.
        factors: [units].
        apart: [n, 1], or None for none.
        form: form(index of an example) -> its gradients, of the shapes of the totals.
    """
    if apart is None:
        return totals
    pending = getattr(_LOCAL, "pending", None)
    if pending is not None:
        pending.append(_Pending(totals, factors, apart, form))
        return totals
    count = tf.size(apart)

    def body(step, totals):
        index = tf.squeeze(tf.cast(tf.gather(apart, step), tf.int32), 0)
        factor = tf.gather(factors, index)
        return step + 1, [total + factor * one for total, one in zip(totals, form(index), strict=True)]

    _, totals = tf.while_loop(
        lambda step, _: step < count, body, (tf.constant(0), totals), parallel_iterations=FORMED_AT_ONCE
    )
    return totals


class _Pending(NamedTuple):
    """The arguments of `with_those_apart`."""

    totals: list
    factors: tf.Tensor
    apart: tf.Tensor
    form: collections.abc.Callable[[tf.Tensor], list[tf.Tensor]]


# Replicas of one strategy trace in threads of their own.
_LOCAL = threading.local()


@contextlib.contextmanager
def in_one_loop():
    """Has one loop add the examples apart of all layers: every loop of its own takes long to compile.

    Yields:
        A dictionary, filled when the block ends: {id(a total that `with_those_apart` returned): the whole sum}.
    """
    outer, _LOCAL.pending, added = getattr(_LOCAL, "pending", None), [], {}
    try:
        yield added
        added.update(_with_pending(_LOCAL.pending))
    finally:
        _LOCAL.pending = outer


def _with_pending(pending):
    if not pending:
        return {}
    factors = tf.stack([one.factors for one in pending])
    shape = tf.shape(factors, tf.int64)
    # An index for every layer and example, as all layers' are looked up at once.
    places = tf.concat([one.apart + number * shape[1] for number, one in enumerate(pending)], axis=0)
    own = tf.gather_nd(tf.reshape(factors, [-1]), places)
    own = tf.reshape(tf.scatter_nd(places, own, tf.size(factors, tf.int64)[None]), shape)
    indices = tf.where(tf.reduce_any(own != 0, axis=0))
    count = tf.size(indices)
    before = [total for one in pending for total in one.totals]

    def body(step, totals):
        index = tf.squeeze(tf.cast(tf.gather(indices, step), tf.int32), 0)
        found = tf.gather(own, index, axis=1)
        zero = tf.zeros([], own.dtype)
        parts = []
        for one, factor, used in zip(pending, tf.unstack(found), tf.unstack(found != 0), strict=True):
            # Of an example that is apart in another layer alone, the gradient here may be too long for a number.
            parts += [tf.where(used, factor * part, zero) for part in one.form(index)]
        return step + 1, [total + part for total, part in zip(totals, parts, strict=True)]

    _, after = tf.while_loop(
        lambda step, _: step < count, body, (tf.constant(0), before), parallel_iterations=FORMED_AT_ONCE
    )
    return {id(total): whole for total, whole in zip(before, after, strict=True)}


def squares_of_products(
    inputs: tf.Tensor, gradients: tf.Tensor, squares: tuple[tf.Tensor, tf.Tensor], setting: contributions.Setting
) -> tuple[tf.Tensor, Sizes]:
    """Squared norms from inner products between positions.

    Args:
        inputs: <a_s, a_t>, [units, (blocks,) T, T].
        gradients: <b_s, b_t>, likewise.
        squares: |a_t|^2 and |b_t|^2, [units, (blocks,) T] each, `added` up more carefully. How far the diagonals are
            from them shows how far inner products of this example go wrong to one side, as those of equal entries do.
        setting: the microbatch.

    Returns:
        Squared norms [units], and their sizes.
    """
    products = inputs * gradients
    over = list(range(1, products.shape.rank))
    exact = not_vanished(tf.stack(squares), setting)
    diagonals = tf.stack([tf.raw_ops.MatrixDiagPart(input=matrix) for matrix in (inputs, gradients)])
    lengths = tf.reduce_prod(tf.sqrt(exact), axis=0)
    differences = tf.abs(not_vanished(diagonals, setting) / exact - 1)
    units = tf.reduce_sum(tf.reduce_mean(differences, axis=[1 + axis for axis in over[:-1]]), axis=0)
    running = _running_sums(products)
    in_all = over_blocks(tf.reduce_sum(lengths, axis=-1))
    sizes = Sizes(
        terms=tf.reduce_sum(tf.abs(products), axis=over) + tf.reduce_sum(tf.square(lengths), axis=over[:-1]),
        lengths=in_all,
        running=tf.reduce_mean(tf.sqrt(tf.maximum(running, 0.0)), axis=1) + in_all / (4 * MARKS),
        positions=products.shape[-1],
        units=units / float(np.finfo(setting.dtype.as_numpy_dtype).eps),
    )
    return running[:, -1], sizes


def added(values: tf.Tensor, setting: contributions.Setting) -> tf.Tensor:
    """The sum over the last axis; where XLA would add one by one, in parts, so that fewer additions follow another."""
    if setting.device == "cpu":
        return tf.reduce_sum(values, axis=-1)
    return tf.add_n(tf.unstack(_in_parts(values), axis=-1))


def over_blocks(lengths: tf.Tensor) -> tf.Tensor:
    """[units, (blocks)] lengths of the parts of a gradient -> its length, [units]."""
    return lengths if lengths.shape.rank == 1 else tf.sqrt(tf.reduce_sum(tf.square(lengths), axis=1))


def _running_sums(products):
    """|P_t|^2 for some t, evenly spaced up to T, [units, number of t]."""
    by_part = _in_parts(products)
    by_part = _in_parts(tf.linalg.matrix_transpose(by_part))
    if by_part.shape.rank > 3:
        by_part = tf.reduce_sum(by_part, axis=list(range(1, by_part.shape.rank - 2)))
    return tf.raw_ops.MatrixDiagPart(input=tf.cumsum(tf.cumsum(by_part, axis=-1), axis=-2))


def _in_parts(values):
    """[..., n] -> the sums of up to `MARKS` parts of the last axis, one behind the other."""
    size = values.shape[-1]
    if size is not None and size <= MARKS:
        return values
    size = tf.shape(values)[-1] if size is None else size
    missing = -size % MARKS
    if not (isinstance(missing, int) and missing == 0):
        values = tf.pad(values, [[0, 0]] * (values.shape.rank - 1) + [[0, missing]])
    shape = [tf.shape(values)[axis] if n is None else n for axis, n in enumerate(values.shape[:-1])]
    return tf.reduce_sum(tf.reshape(values, [*shape, MARKS, (size + missing) // MARKS]), axis=-1)


def not_vanished(squares: tf.Tensor, setting: contributions.Setting) -> tf.Tensor:
    """Squares so small that they may have become 0 count as more than they are: the other factor may be large."""
    smallest = float(np.finfo(setting.dtype.as_numpy_dtype).tiny) * SMALLEST[setting.device]
    return tf.maximum(squares, tf.constant(smallest, setting.dtype))


def _unit_of_products(eps):
    """The unit of rounding of an accelerator's matrix products, whose factors may be shorter numbers than the sums."""
    if eps < 1e-10:
        return eps
    if tf.config.list_logical_devices("TPU"):
        return 2.0**-8
    shortened = tf.config.experimental.tensor_float_32_execution_enabled()
    return 2.0**-11 if shortened and tf.config.list_logical_devices("GPU") else eps
