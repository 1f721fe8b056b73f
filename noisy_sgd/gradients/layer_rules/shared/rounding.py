"""Guards against rounding that would make an example's clipped gradient longer than its bound C.

A norm and a sum over examples can be computed from inputs a_t and output gradients b_t, t = 1..T, without forming any
example's own gradient g = sum_t a_t b_t^T. Where the terms of g cancel, the norm and the sum lose digits, and they lose
different ones. Terms cancel, for example, for an image of one color under output gradients of both signs. The errors:

    the norm    ||g||^2 = sum_{s,t} <a_s, a_t> <b_s, b_t>    one eps of the sum of the terms' absolute values
    the sum     sum_i c_i g_i, by one matrix product         one eps of |a_t| |b_t|, and at each addition one eps of the
                                                             running sum P_t = sum_{s<=t} a_s b_s^T, always with the
                                                             same sign where the terms are alike

    squares, one_by_one = rounding.guarded_norms(squares, sizes, exactly, microbatch)
    totals = rounding.add_one_by_one(totals, factors, one_by_one, form)

A CPU forms the gradients of such examples one by one. Their norm and their part of the sum then come from the same
numbers, so that the part is as long as the clip factor says. An accelerator runs no loop over examples. It adds to the
norm the largest error that rounding can have made: the example is clipped as if its gradient were longer than it is,
never shorter.
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

# A norm or a sum counts as lost where it may be wrong by this share of the gradient.
TOLERANCE = 1e-5
# Beside the errors of the inner products, squared norms have errors of up to 3 eps of their terms' absolute values: the
# largest found in a search for large ones.
UNITS_LOST = 4
# Where rounding always has the same sign, one addition loses on average a quarter of an eps of the running sum.
LOST_AT_A_STEP = 0.25
# Terms of random directions have a running sum of |g| / 1.5 on average, for any number of terms, and their rounding
# errors have both signs. So the error allowed for the number of terms is at most this, in units of `TOLERANCE`.
MOST_OF_RUNNING_SUM = 0.7
# The same where the running sum is not known, times sqrt(T): random terms have |g| = sum_t |a_t| |b_t| / sqrt(T).
MOST_OF_LENGTHS = 2.0
# The number of positions at which running sums are computed.
MARKS = 16
# Where terms are no larger than this, norms are about 1e-12 at most. A CPU forms no gradients of such examples: most of
# them are padding.
NEGLIGIBLE = 1e-25
FORMED_AT_ONCE = 4
# A sum of squares below this many times the smallest normal number may have lost terms that became 0.
SMALLEST = {"cpu": 2.0**23, "accelerator": 2.0**40}
# Used where the trace does not know the number of positions.
ASSUMED_POSITIONS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the terms behind each example's norm and sum, all [units].

    Attributes:
        terms: the sum of the absolute values of the squared norm's terms.
        lengths: sum_t |a_t| |b_t|.
        running: the mean over t of |P_t|; at most `lengths` / 4 where g is short. None where it is not known.
        positions: T; None where the trace does not know it.
        units: the part of each term's error that always has the same sign, in eps of the term. Defaults to 0.
    """

    terms: tf.Tensor
    lengths: tf.Tensor
    running: tf.Tensor | None
    positions: int | None
    units: tf.Tensor | float = 0.0


def guarded_norms(
    squares: tf.Tensor,
    sizes: Sizes,
    exactly: collections.abc.Callable[[tf.Tensor], tf.Tensor],
    microbatch: contributions.Microbatch,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Squared norms with which no example's part of the sum becomes longer than its bound, up to float error.

    Args:
        squares: [units], the computed squared norms. NaN stays NaN.
        sizes: the sizes of their terms.
        exactly: exactly(index of an example) -> its squared norm, a scalar, from its gradient.
        microbatch: the microbatch.

    Returns:
        Squared norms [units], and the indices [n, 1] of the examples formed one by one, None on an accelerator. The sum
        must take the gradients of these examples from the same computation as `exactly`.
    """
    eps = float(np.finfo(microbatch.dtype.as_numpy_dtype).eps)
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
    if microbatch.device != "cpu":
        unit = _unit_of_products(eps)
        longer = tf.where(lost, tf.abs(squares) + (unit * UNITS_LOST + units) * sizes.terms, squares)
        norm = tf.sqrt(longer) + of_running * running + unit * sizes.lengths
        return tf.where(lost | lost_in_sum, tf.square(norm), squares), None
    one_by_one = tf.where((lost | lost_in_sum) & (sizes.terms > NEGLIGIBLE))

    def body(step, norms):
        index = tf.gather(one_by_one, step)
        square = tf.reshape(exactly(tf.squeeze(tf.cast(index, tf.int32), 0)), [1])
        return step + 1, tf.tensor_scatter_nd_update(norms, tf.expand_dims(index, 0), square)

    count = tf.size(one_by_one)
    _, norms = tf.while_loop(
        lambda step, _: step < count,
        body,
        (tf.constant(0), positive),
        parallel_iterations=FORMED_AT_ONCE,
    )
    return norms, one_by_one


def factors_of_others(factors: tf.Tensor, one_by_one: tf.Tensor | None) -> tf.Tensor:
    """The factors [units], 0 for the examples that `add_one_by_one` adds."""
    if one_by_one is None:
        return factors
    return tf.tensor_scatter_nd_update(factors, one_by_one, tf.zeros([tf.size(one_by_one)], factors.dtype))


def add_one_by_one(
    totals: list[tf.Tensor],
    factors: tf.Tensor,
    one_by_one: tf.Tensor | None,
    form: collections.abc.Callable[[tf.Tensor], list[tf.Tensor]],
) -> list[tf.Tensor]:
    """Adds factor times gradient of the examples formed one by one to the sums over the other examples.

    Within `shared_loop` the result is the sums over the other examples alone; the loop adds the rest when it ends.

    Args:
        totals: the sums over the other examples, one per weight.
        factors: [units].
        one_by_one: the indices [n, 1] of the examples formed one by one, or None for none.
        form: form(index of an example) -> its gradients, of the shapes of the totals.
    """
    if one_by_one is None:
        return totals
    pending = getattr(_LOCAL, "pending", None)
    if pending is not None:
        pending.append(_Pending(totals, factors, one_by_one, form))
        return totals
    count = tf.size(one_by_one)

    def body(step, totals):
        index = tf.squeeze(tf.cast(tf.gather(one_by_one, step), tf.int32), 0)
        factor = tf.gather(factors, index)
        return step + 1, [total + factor * one for total, one in zip(totals, form(index), strict=True)]

    _, totals = tf.while_loop(
        lambda step, _: step < count, body, (tf.constant(0), totals), parallel_iterations=FORMED_AT_ONCE
    )
    return totals


class _Pending(NamedTuple):
    """The arguments of `add_one_by_one`."""

    totals: list
    factors: tf.Tensor
    one_by_one: tf.Tensor
    form: collections.abc.Callable[[tf.Tensor], list[tf.Tensor]]


# Each replica of a strategy traces in its own thread.
_LOCAL = threading.local()


@contextlib.contextmanager
def shared_loop():
    """Adds the examples formed one by one of all layers in one loop, since every further loop takes long to compile.

    Yields:
        A dictionary, filled when the block ends: {id(total that `add_one_by_one` returned): complete sum}.
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
    # One index per layer and example: the factors of all layers are read at once.
    places = tf.concat([one.one_by_one + number * shape[1] for number, one in enumerate(pending)], axis=0)
    own = tf.gather_nd(tf.reshape(factors, [-1]), places)
    own = tf.reshape(tf.scatter_nd(places, own, tf.size(factors, tf.int64)[None]), shape)
    indices = tf.where(tf.reduce_any(own != 0, axis=0))
    count = tf.size(indices)
    before = [total for one in pending for total in one.totals]

    def body(step, totals):
        index = tf.squeeze(tf.cast(tf.gather(indices, step), tf.int32), 0)
        factors_here, totals = tf.unstack(tf.gather(own, index, axis=1)), iter(totals)
        after = []
        for one, factor in zip(pending, factors_here, strict=True):
            here = [next(totals) for _ in one.totals]

            # A branch: most layers have no such example, and the keys of attention that is nearly uniform have only
            # such ones. An example formed one by one only for another layer may have a gradient here that overflows.
            def added(one=one, factor=factor, here=here):
                return [total + factor * part for total, part in zip(here, one.form(index), strict=True)]

            after += tf.cond(factor != 0, added, lambda here=here: [tf.identity(total) for total in here])
        return step + 1, after

    _, after = tf.while_loop(
        lambda step, _: step < count, body, (tf.constant(0), before), parallel_iterations=FORMED_AT_ONCE
    )
    return {id(total): whole for total, whole in zip(before, after, strict=True)}


def squares_of_products(
    inputs: tf.Tensor, gradients: tf.Tensor, squares: tuple[tf.Tensor, tf.Tensor], microbatch: contributions.Microbatch
) -> tuple[tf.Tensor, Sizes]:
    """Squared norms from inner products between positions.

    Args:
        inputs: <a_s, a_t>, [units, (blocks,) T, T].
        gradients: <b_s, b_t>, likewise.
        squares: |a_t|^2 and |b_t|^2, [units, (blocks,) T] each, by `squared_lengths`. The difference between them and
            the diagonals shows the error of the same sign in this example's inner products, as inner products of equal
            entries have it.
        microbatch: the microbatch.

    Returns:
        Squared norms [units], and the sizes of their terms.
    """
    products = inputs * gradients
    over = list(range(1, products.shape.rank))
    exact = not_vanished(tf.stack(squares), microbatch)
    diagonals = tf.stack([tf.raw_ops.MatrixDiagPart(input=matrix) for matrix in (inputs, gradients)])
    lengths = tf.reduce_prod(tf.sqrt(exact), axis=0)
    differences = tf.abs(not_vanished(diagonals, microbatch) / exact - 1)
    units = tf.reduce_sum(tf.reduce_mean(differences, axis=[1 + axis for axis in over[:-1]]), axis=0)
    running = _running_sums(products)
    in_all = over_blocks(tf.reduce_sum(lengths, axis=-1))
    sizes = Sizes(
        terms=tf.reduce_sum(tf.abs(products), axis=over) + tf.reduce_sum(tf.square(lengths), axis=over[:-1]),
        lengths=in_all,
        running=tf.reduce_mean(tf.sqrt(tf.maximum(running, 0.0)), axis=1) + in_all / (4 * MARKS),
        positions=products.shape[-1],
        units=units / float(np.finfo(microbatch.dtype.as_numpy_dtype).eps),
    )
    return running[:, -1], sizes


def squared_lengths(vectors: tf.Tensor, microbatch: contributions.Microbatch) -> tf.Tensor:
    """[..., n] -> [...], the sums of squares; by halves where XLA would add entry by entry, which errs more."""
    if microbatch.device == "cpu":
        return contributions.row_squares(vectors)
    squares, size = tf.square(vectors), vectors.shape[-1]
    if size is None or size > MARKS:
        squares, _ = _padded(squares)
        for _ in range(MARKS.bit_length() - 1):
            squares = tf.add_n(tf.split(squares, 2, axis=-1))
    return tf.reduce_sum(squares, axis=-1)


def over_blocks(lengths: tf.Tensor) -> tf.Tensor:
    """The lengths of a gradient's parts, [units, (blocks)] -> the length of the gradient, [units]."""
    return lengths if lengths.shape.rank == 1 else tf.sqrt(tf.reduce_sum(tf.square(lengths), axis=1))


def _running_sums(products):
    """|P_t|^2 for some t, evenly spaced up to T, [units, number of t]."""
    by_part = _in_parts(products)
    by_part = _in_parts(tf.linalg.matrix_transpose(by_part))
    if by_part.shape.rank > 3:
        by_part = tf.reduce_sum(by_part, axis=list(range(1, by_part.shape.rank - 2)))
    return tf.raw_ops.MatrixDiagPart(input=tf.cumsum(tf.cumsum(by_part, axis=-1), axis=-2))


def _in_parts(values):
    """[..., n] -> the sums of up to `MARKS` consecutive parts of the last axis."""
    if values.shape[-1] is not None and values.shape[-1] <= MARKS:
        return values
    values, size = _padded(values)
    shape = [tf.shape(values)[axis] if n is None else n for axis, n in enumerate(values.shape[:-1])]
    return tf.reduce_sum(tf.reshape(values, [*shape, MARKS, size // MARKS]), axis=-1)


def _padded(values):
    """The values with zeros at the end of the last axis, whose size is then a multiple of `MARKS`; and this size."""
    size = tf.shape(values)[-1] if values.shape[-1] is None else values.shape[-1]
    missing = -size % MARKS
    if not (isinstance(missing, int) and missing == 0):
        values = tf.pad(values, [[0, 0]] * (values.shape.rank - 1) + [[0, missing]])
    return values, size + missing


def not_vanished(squares: tf.Tensor, microbatch: contributions.Microbatch) -> tf.Tensor:
    """The squares, but at least a safe minimum: a smaller one may have underflowed beside a large other factor."""
    smallest = float(np.finfo(microbatch.dtype.as_numpy_dtype).tiny) * SMALLEST[microbatch.device]
    return tf.maximum(squares, tf.constant(smallest, microbatch.dtype))


def _unit_of_products(eps):
    """The unit of rounding of an accelerator's matrix products, whose factors may have fewer bits than the sums."""
    if eps < 1e-10:
        return eps
    if tf.config.list_logical_devices("TPU"):
        return 2.0**-8
    shortened = tf.config.experimental.tensor_float_32_execution_enabled()
    return 2.0**-11 if shortened and tf.config.list_logical_devices("GPU") else eps
