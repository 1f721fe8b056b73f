"""Do examples mix in a loss, and does it give one value per example? Tried on synthetic targets and predictions.

The same synthetic example must have the same loss in every batch that holds it: of few examples or many, of one class
or of several. And its loss must have no gradient at another example's prediction. This finds contrastive and rank
losses, weights by the batch's frequencies and averages over the batch's tokens.

    loss_mixing.check(loss_fn, y, predictions)    # raises ValueError
"""

import weakref

import numpy as np
import tensorflow as tf

from noisy_sgd import keys
from noisy_sgd.gradients.trials import loss_examples, synthetic

# The kinds of targets and predictions that each loss was tried on.
_TRIED: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()
# Batches, as indices of a pool's examples: two of a class; one of another class beside two of a class; all of different
# classes; all of one class. They have few sizes, since a `tf.function` is traced for each.
_BATCHES = ((0, 1), (3, 2, 5), (13, 12, 11, 10, 9, 8, 5, 0), (6, 0, 14))
# The examples whose losses' gradient is looked at. No cyclic shift of all examples maps this set to itself.
_SOME = (0, 2, 3, 7, 8, 11, 12, 13)
# Where gradients cancel, rounding leaves at most this share of the largest entry.
_CANCELLED = 1e-5


def check(loss_fn, y, predictions) -> None:
    """Refuses a loss in which examples mix, or that does not give one value per example.

    Args:
        loss_fn: loss_fn(y, predictions) -> losses [B].
        y: targets, any nest of [B, ...]; only shapes and types are used.
        predictions: likewise.

    Raises:
        ValueError: saying what is wrong, or that the loss runs on no synthetic examples.
    """
    flat = tf.nest.flatten((y, predictions))
    if any(tf.TensorShape(tensor.shape).rank is None for tensor in flat):
        raise ValueError(
            "`loss` must be tried on synthetic examples, for which the number of axes of targets and predictions must "
            f"be known; set their shapes with tf.ensure_shape. Received: shapes {_shapes(y)} and {_shapes(predictions)}"
        )
    found = synthetic.run_untraced(lambda: _found(loss_fn, y, predictions))
    if isinstance(found, str):
        raise ValueError(found)
    if found is not None:
        kinds = [kind.name for kind in loss_examples.KINDS]
        if loss_examples.unknown(y, predictions):
            way_out = "give the targets and predictions known sizes, as tf.ensure_shape does, or have it accept any"
        else:
            way_out = "have it accept any of them"
        raise synthetic.refusal("`loss`", kinds, found, way_out, flat) from found


def checked_loss(loss_fn):
    """The same loss, tried before it is used: its value for an example must depend on that example alone.

    Every loss is tried once per structure, shapes and types of its targets and predictions.

    Args:
        loss_fn: loss_fn(y, predictions) -> losses [B].

    Returns:
        A function of the same arguments; it raises ValueError for another kind of loss.
    """
    try:
        tried = _TRIED.setdefault(loss_fn, set())
    except TypeError:
        # Some objects cannot be hashed, or have no weak references.
        tried = set()

    def checked(y, predictions):
        signature = synthetic.signature((y, predictions), lambda shape: tuple(shape)[1:] if shape.rank else None)
        if signature not in tried:
            check(loss_fn, y, predictions)
            tried.add(signature)
        return loss_fn(y, predictions)

    return checked


def _found(loss_fn, y, predictions):
    """A sentence about what is wrong, the reason why nothing could be tried, or None."""
    reason, wrong_shape = None, None
    to_try = loss_examples.shapes_to_try(y, predictions)
    for index, shapes in enumerate(to_try):
        tried, problem = _tried(loss_fn, y, predictions, shapes)
        if isinstance(problem, _WrongShapeError):
            wrong_shape = wrong_shape or str(problem)
        elif isinstance(problem, str):
            return problem
        elif tried:
            # A size of 1 is dropped or broadcast by some losses.
            ones = [shapes for shapes in to_try[index + 1 :] if 1 in (size for shape in shapes for size in shape)]
            problems = [_tried(loss_fn, y, predictions, shapes)[1] for shapes in ones[:1]]
            return next((problem for problem in problems if isinstance(problem, str)), None)
        else:
            reason = reason or problem
    return wrong_shape or reason


def _tried(loss_fn, y, predictions, shapes):
    """(whether the loss ran on some kind, a sentence or an error if there is one)."""
    reason, tried = None, False
    for index, pool in enumerate(loss_examples.pools(y, predictions, shapes)):
        batches = _BATCHES[index % 2 :: 2] if tried else _BATCHES
        try:
            # A CPU raises an error for labels out of range, an accelerator does not.
            with tf.device("CPU:0"):
                problem = _problem(loss_fn, pool, batches)
        except _WrongShapeError as error:
            return False, error
        except Exception as error:  # noqa: BLE001 - whatever a loss of the user's raises
            reason = reason or error
            continue
        tried = True
        if problem is not None:
            made = f", tried on examples of shapes {shapes}" if loss_examples.unknown(y, predictions) else ""
            return True, f"{problem} Received: shapes {_shapes(y)} and {_shapes(predictions)}{made}"
    return tried, reason


class _WrongShapeError(Exception):
    """The loss does not give one value per example."""


def _problem(loss_fn, pool, batches):
    """A sentence about the first thing wrong on a pool, or None; raises where the pool shows nothing."""
    everyone = list(range(pool.count))
    y, predictions = pool.rows(everyone)
    watched = [tensor for tensor in tf.nest.flatten(predictions) if tf.is_tensor(tensor) and tensor.dtype.is_floating]
    some = np.isin(everyone, _SOME)
    # Entries must not cancel.
    slopes = keys.arbitrary(2).uniform(0.5, 1.5, pool.count)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(watched)
        losses = _losses(loss_fn, y, predictions, pool.count)
    synthetic.check_finite([losses])
    for batch in _of_at_most(pool.count, batches):
        if not _same(_losses(loss_fn, *pool.rows(batch), len(batch)), losses, batch, loss_fn, pool):
            return (
                "`loss` must treat every example alone: an example's loss changes with the other examples of the "
                "batch; take out what works over the batch axis; are targets and predictions of one shape?"
            )

    def gradients_of(slopes):
        if not losses.dtype.is_floating:
            return []
        found = tape.gradient(losses, watched, output_gradients=tf.constant(slopes, losses.dtype))
        return [_numbers(tf.convert_to_tensor(gradient)) for gradient in found if gradient is not None]

    gradients = gradients_of(np.where(some, slopes, 0.0))
    if any(_reaches_others(gradient, some) for gradient in gradients):
        return (
            "`loss` must treat every example alone: an example's loss has a gradient at another example's prediction; "
            "take out what works over the batch axis; are targets and predictions of one shape?"
        )
    # Only a custom gradient can differ here, so the first pool is enough, on which all batches are tried.
    together = gradients_of(slopes) if batches == _BATCHES else gradients
    for alone, gradient in zip(gradients, together, strict=True):
        if not synthetic.nearly_equal(alone[some], gradient[some], relative=True):
            return (
                "`loss` must treat every example alone: the gradient of an example's loss changes with the other "
                "examples of the batch; take out what works over the batch axis."
            )
    return None


def _losses(loss_fn, y, predictions, count):
    losses = tf.convert_to_tensor(loss_fn(y, predictions))
    if losses.shape != (count,):
        raise _WrongShapeError(
            f"`loss` must give one value per example: from {count} examples it must return a tensor of shape "
            f"({count},). Received: shape={tuple(losses.shape)}"
        )
    return losses


def _of_at_most(count, batches):
    batches = [tuple(index for index in batch if index < count) for batch in batches]
    return [batch for batch in dict.fromkeys(batches) if len(batch) > 1]


def _same(found, losses, batch, loss_fn, pool):
    """Whether the losses of a batch are those of the same examples among all, but for rounding."""
    before, after = _numbers(losses), _numbers(found)
    expected = before[list(batch)]
    of_size = np.abs(before[np.isfinite(before)]).max(initial=0.0)
    rounding = 2.0**-4 if losses.dtype.size < 4 else 0.0
    relative, absolute = max(1e-3, rounding), max(1e-4, rounding) * min(of_size, 1.0)
    if np.allclose(after, expected, rtol=relative, atol=absolute, equal_nan=True):
        return True
    # Where terms cancel, rounding errors are larger. Another order of the same examples shows how large.
    order = keys.arbitrary(3).permutation(pool.count)
    turned = _numbers(_losses(loss_fn, *pool.rows(order), pool.count))
    rounded = _largest_difference(turned, before[order])
    return rounded < 1e-3 * of_size and _largest_difference(after, expected) < 30 * rounded


def _numbers(tensor):
    return np.asarray(tf.cast(tensor, tf.float64))


def _largest_difference(a, b):
    """Infinity where one is finite and the other is not."""
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    return np.abs(a[finite] - b[finite]).max(initial=0.0)


def _reaches_others(rows, some):
    """Whether the gradient of the losses of some examples is at more than their own predictions."""
    rows = np.where(np.isfinite(rows), np.abs(rows), 0.0)
    return rows[~some].max(initial=0.0) > _CANCELLED * rows[some].max(initial=0.0)


def _shapes(tensors):
    shapes = [tf.TensorShape(tensor.shape) for tensor in tf.nest.flatten(tensors)]
    return [None if shape.rank is None else tuple(shape) for shape in shapes]
