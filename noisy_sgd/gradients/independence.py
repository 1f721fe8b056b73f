"""Tries whether a model treats every example alone, as the clipped sum's bound needs, and keeps nothing of its data.

A layer, or an operation such as a mean over the batch, that lets one example's output depend on another example puts
several examples into one "per-example" gradient, and the clip no longer bounds what one of them can change. And a
variable that a call changes by what it sees, such as a running mean, carries data past the noise. The test takes
made-up inputs, never data: it moves one example and looks at the others' outputs, and at the model's variables.

    independence.check(model, model.input)    # raises ValueError
"""

import weakref

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd.gradients import made_up

_CHECKED: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def check(model: keras.Model, inputs) -> None:
    """Refuses a model in which one example's outputs depend on another example, or that keeps something of its inputs.

    Tries every model once.

    Args:
        model: a Keras model; one that is not built yet is built.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.

    Raises:
        ValueError: if moving one example changes another one's outputs, or a variable's value after a call with
            training=True; or if the model fails on made-up inputs.
    """
    if model in _CHECKED:
        return
    with tf.init_scope():
        problem = made_up.of_model(model, inputs, lambda examples: _problem(model, examples))
    if problem is not None:
        raise ValueError(problem)
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

    def problem(examples):
        losses = loss_fn(*examples.batch(2))
        if losses.shape != (2,):
            return (
                "`loss` must give one value an example: from 2 examples it must return a tensor of shape (2,). "
                f"Received: shape={tuple(losses.shape)}"
            )
        made_up.check_finite([losses])
        for moved in range(2):
            if not made_up.same(loss_fn(*examples.batch(2, moved))[1 - moved], losses[1 - moved]):
                return (
                    "`loss` must treat every example alone: another example's loss changes when one is moved; are "
                    f"targets and predictions of one shape? Received: shapes {_shapes(y)} and {_shapes(predictions)}"
                )
        return None

    with tf.init_scope():
        found = made_up.tried("`loss`", (y, predictions), problem)
    if found is not None:
        raise ValueError(found)


def _problem(model, examples):
    """A sentence about the first thing wrong with a model, or None."""
    if not model.built:
        made_up.call(model, [], examples.batch(1), training=False)
    weights = made_up.weights(model)
    # Gradients come from calls in training: those are tried more thoroughly.
    for training, count in ((False, 2), (True, made_up.COUNT)):
        outputs, state = made_up.call(model, weights, examples.batch(count), training)
        made_up.check_finite(outputs)
        for moved in range(count):
            others = [index for index in range(count) if index != moved]
            found, after = made_up.call(model, weights, examples.batch(count, moved), training)
            for before, output in zip(outputs, found, strict=True):
                if not made_up.same(tf.gather(before, others), tf.gather(output, others), relative=True):
                    return (
                        "`model` must treat every example alone: another example's outputs change when one is moved, "
                        "so no clip bounds what one example can change; take out what works over the batch axis. "
                        f"Received: model={model.name}"
                    )
            for key, (name, value) in state.items() if training else ():
                # Exactly: what moves slowly keeps data too.
                if np.asarray(value).tobytes() != np.asarray(after[key][1]).tobytes():
                    return (
                        f"`model` must keep nothing of its inputs but what it is trained to: variable {name!r} "
                        "depends on them after a call with training=True, so data would stay there without noise; "
                        "take out the layer, or compute its statistic beforehand from public data. "
                        f"Received: variable={name}"
                    )
    return None


def _shapes(tensors):
    return [tuple(tensor.shape) for tensor in tf.nest.flatten(tensors)]
