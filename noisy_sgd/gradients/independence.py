"""Tries whether a model treats every example alone, as the clipped sum's bound needs.

A layer, or an operation such as a mean over the batch, that lets one example's output depend on another example puts
several examples into one "per-example" gradient, and the clip no longer bounds what one of them can change. The test
takes made-up inputs, never data: it moves one example and looks at the other's outputs.

    independence.check(model, model.input)    # raises ValueError
"""

import weakref

import keras
import numpy as np
import tensorflow as tf

_UNKNOWN_SIZE = 16
_CHECKED: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def check(model: keras.Model, inputs) -> None:
    """Refuses a model in which one example's outputs depend on another example; tries every model once.

    Args:
        model: a built Keras model.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.

    Raises:
        ValueError: if moving one example changes another one's outputs.
    """
    if model in _CHECKED:
        return
    with tf.init_scope():
        mixed = _mixes(model, inputs)
    if mixed:
        raise ValueError(
            "`model` must treat every example alone: another example's outputs change when one is moved, so no clip "
            "bounds what one example can change; take out what works over the batch axis. "
            f"Received: model={model.name}"
        )
    _CHECKED.add(model)


def checked_loss(loss_fn):
    """The same loss, tried at its first call: it must give one value an example, that depends on that example alone.

    Targets and predictions with sizes unknown to the trace, beside the batch's, are not tried.

    Args:
        loss_fn: loss_fn(y, predictions) -> losses [B].

    Returns:
        A function of the same arguments; its first call raises ValueError for another kind of loss.
    """
    tried = []

    def checked(y, predictions):
        if not tried:
            _try_loss(loss_fn, y, predictions)
            tried.append(True)
        return loss_fn(y, predictions)

    return checked


def _try_loss(loss_fn, y, predictions):
    if any(None in tensor.shape[1:] for tensor in tf.nest.flatten((y, predictions))):
        # Sizes that belong together cannot be made up.
        return
    with tf.init_scope():
        rng = np.random.default_rng(0)
        one, other, moved = _three((y, predictions), rng)
        for first, second in ((one, other), (other, one)):
            losses = loss_fn(*_pair(first, second))
            if losses.shape != (2,):
                raise ValueError(
                    "`loss` must give one value an example: from 2 examples it must return a tensor of shape (2,). "
                    f"Received: shape={tuple(losses.shape)}"
                )
        pairs = ((_pair(one, other), _pair(one, moved), 0), (_pair(other, one), _pair(moved, one), 1))
        for before, after, kept in pairs:
            if not _close(loss_fn(*before)[kept], loss_fn(*after)[kept]):
                raise ValueError(
                    "`loss` must treat every example alone: another example's loss changes when one is moved; are "
                    f"targets and predictions of one shape? Received: shapes {_shapes(y)} and {_shapes(predictions)}"
                )


def _mixes(model, inputs):
    rng = np.random.default_rng(0)
    one, other, moved = _three(inputs, rng)
    # Weights that start at zero would hide everything behind them.
    weights = [(weight, weight.value + _normals(weight, rng)) for weight in model.trainable_variables]

    def outputs(pair, kept, training):
        with keras.StatelessScope(state_mapping=weights):
            found = model(pair, training=training)
        return [output[kept] for output in tf.nest.flatten(found)]

    pairs = ((_pair(one, other), _pair(one, moved), 0), (_pair(other, one), _pair(moved, one), 1))
    return any(
        not _close(a, b)
        for before, after, kept in pairs
        for training in (False, True)
        for a, b in zip(outputs(before, kept, training), outputs(after, kept, training), strict=True)
    )


def _three(like, rng):
    """Three made-up examples of which the last differs from the second in every entry."""
    one, other = (keras.tree.map_structure(lambda t: _example(t, rng), like) for _ in range(2))
    return one, other, keras.tree.map_structure(lambda t: 1 - t, other)


def _pair(first, second):
    return keras.tree.map_structure(lambda a, b: tf.concat([a, b], axis=0), first, second)


def _close(a, b):
    a, b = (np.asarray(tf.cast(tensor, tf.float64)) for tensor in (a, b))
    return np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


def _shapes(tensors):
    return [tuple(tensor.shape) for tensor in tf.nest.flatten(tensors)]


def _normals(weight, rng):
    return tf.cast(tf.constant(0.1 * rng.normal(size=weight.shape)), weight.dtype)


def _example(like, rng):
    """One made-up example: normals of a large scale, or integers 0 and 1, which every vocabulary has."""
    shape = [1, *(_UNKNOWN_SIZE if size is None else size for size in like.shape[1:])]
    dtype = tf.as_dtype(keras.backend.standardize_dtype(like.dtype))
    if dtype.is_floating:
        return tf.cast(tf.constant(rng.normal(scale=10.0, size=shape)), dtype)
    return tf.cast(tf.constant(rng.integers(0, 2, shape)), dtype)
