"""Keras' `loss` argument, one value an example instead of one a batch.

loss_fn = per_example_loss.from_keras("sparse_categorical_crossentropy")
loss_fn((labels,), predictions)                   # [B]
loss_fn((labels, sample_weight), predictions)     # [B]
"""

import copy

import keras
import tensorflow as tf


def from_keras(loss, loss_weights=None):
    """A per-example loss from what `compile(loss=...)` takes.

    Args:
        loss: a name, a function (y_true, y_pred) -> [B, ...], a `keras.losses.Loss` of any reduction, or for several
            outputs a list or dict of these.
        loss_weights: for several outputs, numbers in the same structure. Defaults to 1 each.

    Returns:
        A function ((y,), predictions) or ((y, sample_weight), predictions) -> losses [B]; the weight [B] multiplies the
        loss.

    Raises:
        ValueError: for a loss that cannot be resolved, or structures that differ.
    """
    if isinstance(loss, dict | list | tuple):
        names = list(loss) if isinstance(loss, dict) else list(range(len(loss)))
        parts = {name: _per_example(loss[name]) for name in names}
        scales = {name: 1.0 if loss_weights is None else float(loss_weights[name]) for name in names}
    else:
        if loss_weights is not None and not isinstance(loss_weights, int | float):
            raise ValueError(f"`loss_weights` needs a list or dict of losses. Received: loss_weights={loss_weights!r}")
        parts, scales = _per_example(loss), 1.0 if loss_weights is None else float(loss_weights)

    def loss_fn(targets, predictions):
        y, *sample_weight = targets
        if isinstance(parts, dict):
            losses = tf.add_n([scales[name] * part(y[name], predictions[name]) for name, part in parts.items()])
        else:
            losses = scales * parts(y, predictions)
        for weight in sample_weight:
            losses = losses * tf.reshape(tf.cast(weight, losses.dtype), [-1])
        return losses

    return loss_fn


def _per_example(loss):
    if loss is None:
        raise ValueError("`loss` must be given: a name, a function or a keras.losses.Loss. Received: loss=None")
    try:
        resolved = keras.losses.get(loss)
    except ValueError:
        raise ValueError(
            f"`loss` must be the name of a Keras loss, a function or an object. Received: loss={loss!r}"
        ) from None
    if isinstance(resolved, keras.losses.Loss):
        resolved = copy.copy(resolved)
        resolved.reduction = "none"

    def per_example(y_true, y_pred):
        losses = tf.convert_to_tensor(resolved(y_true, y_pred))
        return losses if losses.shape.rank == 1 else tf.reduce_mean(losses, axis=list(range(1, losses.shape.rank)))

    return per_example
