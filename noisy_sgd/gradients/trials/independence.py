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

from noisy_sgd import keras_internals
from noisy_sgd.gradients.trials import loss_trial, made_up

# Of each model and each loss the kinds of inputs that it was tried for.
_TRIED: "weakref.WeakKeyDictionary[keras.Model, set]" = weakref.WeakKeyDictionary()
_TRIED_LOSSES: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()
# Calls in training or not: the examples, as `made_up.Examples.chosen` takes them, and the places of those to move at
# once, beside which the others must stay. Gradients come from calls in training: there two examples are the same, each
# move makes others the same, and each example is moved.
_CALLS = ((False, (0, 1), ((0,), (1,))), (True, (0, 1, 2, 0, made_up.COUNT + 1), ((0, 3, 4), (1, 2))))
_MORE = (1, 2, 1)


def check(model: keras.Model, inputs) -> None:
    """Refuses a model in which one example's outputs depend on another example, or that keeps something of its inputs.

    Tries every model once for inputs of each structure, type and number of axes, and each choice of trainable layers.

    Args:
        model: a Keras model; one that is not built yet is built.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.

    Raises:
        ValueError: if moving one example changes another one's outputs, or a variable's value after a call with
            training=True; or if the model fails on made-up inputs.
    """
    tried = _TRIED.setdefault(model, set())
    trainable = tuple(layer.trainable for layer in keras_internals.layers(model))
    signature = (trainable, _signature(inputs, lambda shape: shape.rank))
    if signature in tried:
        return
    problem = made_up.of_model(model, inputs, lambda examples: _problem(model, examples))
    if problem is not None:
        raise ValueError(problem)
    tried.add(signature)


def checked_loss(loss_fn):
    """The same loss, tried before it is used: it must give one value an example, that depends on that example alone.

    Tries every loss once for targets and predictions of each structure, shape and type.

    Args:
        loss_fn: loss_fn(y, predictions) -> losses [B].

    Returns:
        A function of the same arguments; it raises ValueError for another kind of loss.
    """
    try:
        tried = _TRIED_LOSSES.setdefault(loss_fn, set())
    except TypeError:
        # Some objects cannot be told from others, or referred to weakly.
        tried = set()

    def checked(y, predictions):
        signature = _signature((y, predictions), lambda shape: tuple(shape)[1:] if shape.rank else None)
        if signature not in tried:
            loss_trial.check(loss_fn, y, predictions)
            tried.add(signature)
        return loss_fn(y, predictions)

    return checked


def _signature(tensors, of_shape):
    """What tells one kind of inputs from another."""

    def described(tensor):
        mask = keras_internals.mask(tensor)
        shapes = [of_shape(tf.TensorShape(part.shape)) for part in (tensor, *(() if mask is None else (mask,)))]
        kind = type(tensor).__name__ if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor) else ""
        return f"{kind} {tf.as_dtype(tensor.dtype).name} {shapes}"

    return repr(keras.tree.map_structure(described, tensors))


def _problem(model, examples):
    """A sentence about the first thing wrong with a model, or None."""
    if not model.built:
        made_up.call(model, [], examples.batch(1), training=False)
    weights = made_up.weights(model)
    for training, chosen, moves in _CALLS:
        outputs, state = made_up.call(model, weights, examples.chosen(chosen), training)
        made_up.check_finite(outputs)
        for places in moves:
            moved = [
                (index + made_up.COUNT) % (2 * made_up.COUNT) if place in places else index
                for place, index in enumerate(chosen)
            ]
            others = [place for place in range(len(chosen)) if place not in places]
            found, after = made_up.call(model, weights, examples.chosen(moved), training)
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
    if _counts(model, weights, examples, chosen, outputs):
        return (
            "`model` must treat every example alone: an example's outputs change with the number of examples in the "
            f"batch; take out what works over the batch axis. Received: model={model.name}"
        )
    return None


def _counts(model, weights, examples, chosen, outputs):
    """Whether outputs change with the number of examples, where they do not change with their order.

    What is drawn at random changes with both, and bounds nothing less.
    """

    def called(indices, training):
        return made_up.call(model, weights, examples.chosen(indices), training)[0]

    def agree(found, places):
        rows = [tf.gather(output, places) for output in found]
        return all(made_up.same(*pair, True, made_up.OTHER_KERNELS) for pair in zip(outputs, rows, strict=True))

    places = list(range(len(chosen)))
    for training in (True, False):
        outputs = outputs if training else called(chosen, training)
        if agree(called([*chosen, *_MORE], training), places):
            return False
        if agree(called(chosen[::-1], training), places[::-1]):
            return True
    return False
