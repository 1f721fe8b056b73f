"""Keras' `loss` argument as a loss with one value per example instead of one per batch.

    loss_i = sum over the outputs of loss_weight * sample_weight_i * loss(y_i, prediction_i)

with the mean over the further axes of an example, except for masked values. This is the loss that Keras computes for a
batch with this example alone.

loss_fn = per_example_loss.from_keras("sparse_categorical_crossentropy")
loss_fn((labels,), predictions)                   # [B]
loss_fn((labels, sample_weight), predictions)     # [B]
"""

import math

import keras
import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.training import per_output, prediction_masks

_HINGES = ("hinge", "squared_hinge", "Hinge", "SquaredHinge", keras.losses.hinge, keras.losses.squared_hinge)


class PerExampleLoss:
    """A function ((y,), predictions) or ((y, sample_weight), predictions) -> losses [B].

    The sample weight, [B] or with the further axes of the unreduced loss, multiplies the loss. Sample weights are one
    tensor for all outputs, or one per output. None or an empty tuple stands for a weight of 1, and for targets that no
    loss needs.

    Args:
        losses: a nest of functions (y_true, y_pred, sample_weight or None) -> [B]; None for outputs without a loss.
        scales: a nest of floats, or None.
        output_names: the names of the flattened outputs.

    Attributes:
        keras_loss: the loss that was passed to `from_keras`.
        saw_masks: whether the predictions of any call carried a Keras mask.
    """

    def __init__(self, losses, scales, output_names):
        self._losses, self._scales, self._names = losses, scales, output_names
        self.keras_loss, self.saw_masks = None, False

    def __call__(self, targets, predictions):
        self.saw_masks = self.saw_masks or prediction_masks.any_mask(predictions)
        losses = [
            (function(y_true, y_pred, weight), scale)
            for function, scale, y_true, weight, y_pred in self.matched(targets, predictions)
        ]
        dtype = max((values.dtype for values, _ in losses), key=lambda dtype: dtype.size)
        scaled = [tf.cast(values if scale in (None, 1.0) else scale * values, dtype) for values, scale in losses]
        return scaled[0] if len(scaled) == 1 else tf.add_n(scaled)

    def matched(self, targets, predictions):
        """Matches losses, scales, targets, sample weights and predictions by output.

        Args:
            targets: (y,) or (y, sample_weight); None for the losses alone.
            predictions: the model's outputs, tensors or symbolic tensors.

        Returns:
            One tuple for each output that has a loss: the function, its scale, targets, sample weight and prediction.

        Raises:
            ValueError: for structures that differ, and for missing targets.
        """
        functions = per_output.entries("loss", self._losses, predictions, self._names)
        needed = [place for place, function in enumerate(functions) if function is not None]
        scales = per_output.entries("loss_weights", self._scales, predictions, self._names, needed)
        y_true, weights = [None] * len(functions), [None] * len(functions)
        if targets is not None:
            y, sample_weight = (*targets, None)[:2]
            y_true = per_output.targets(y, predictions, self._names, needed)
            weights = per_output.entries("sample_weight", sample_weight, predictions, self._names, needed)
        rows = zip(functions, scales, y_true, weights, keras.tree.flatten(predictions), strict=True)
        return [row for row in rows if row[0] is not None]


def from_keras(loss, loss_weights=None, output_names=()) -> PerExampleLoss:
    """The per-example loss of a `loss` argument of Keras' `compile`.

    Args:
        loss: a name, a function (y_true, y_pred) -> [B, ...], a `keras.losses.Loss`, whose reduction is left out, or
            for several outputs a list or dict of these. Outputs without a loss have None or no entry.
        loss_weights: one number for all outputs, or a list or dict with one number per output. Defaults to 1.
        output_names: the names of the model's flattened outputs, for a dict beside a list of outputs. Defaults to none.

    Raises:
        ValueError: for an unknown loss, or weights that are not numbers.
    """
    if not any(part is not None for part in keras.tree.flatten(loss)):
        raise ValueError(f"`loss` must be given: a name, a function or a keras.losses.Loss. Received: loss={loss!r}")
    losses = keras.tree.map_structure(lambda part: None if part is None else _of_signs(part, _per_example(part)), loss)
    per_example_loss = PerExampleLoss(losses, _scales(loss_weights), output_names)
    per_example_loss.keras_loss = loss
    return per_example_loss


def _scales(loss_weights):
    """The same nest with Python floats."""
    try:
        return keras.tree.map_structure(lambda scale: None if scale is None else float(scale), loss_weights)
    except (TypeError, ValueError):
        raise ValueError(
            "`loss_weights` must be a number, or a list or dict with one number for each output. "
            f"Received: loss_weights={loss_weights!r}"
        ) from None


def _of_signs(loss, per_example):
    """The loss; a hinge loss gets an example's targets 0 and 1 as -1 and 1, where Keras looks at the whole batch."""
    if not (type(loss) in (keras.losses.Hinge, keras.losses.SquaredHinge) or loss in _HINGES):
        return per_example

    def of_signs(y_true, y_pred, sample_weight):
        y_true = tf.cast(y_true, y_pred.dtype)
        others = (y_true != 0) & (y_true != 1)
        keep = tf.reduce_any(others, axis=list(range(1, y_true.shape.rank)), keepdims=True)
        return per_example(tf.where(keep, y_true, 2 * y_true - 1), y_pred, sample_weight)

    return of_signs


def _per_example(loss):
    """loss(y_true, y_pred, sample_weight or None) -> [B]."""
    unreduced = _unreduced(loss)

    def per_example(y_true, y_pred, sample_weight):
        losses, own_mask = unreduced(y_true, y_pred)
        if losses.dtype.size < 4:
            losses = tf.cast(losses, tf.float32)
        axes = list(range(1, losses.shape.rank))
        if sample_weight is not None:
            losses = losses * _matched_rank("sample_weight", sample_weight, losses)
        masks = [mask for mask in (keras_internals.mask(y_pred), own_mask) if mask is not None]
        if not masks:
            return tf.reduce_mean(losses, axis=axes) if axes else losses
        mask = math.prod(_matched_rank("mask", mask, losses) for mask in masks)
        if not axes:
            return losses * mask
        mask = tf.broadcast_to(mask, tf.shape(losses))
        return tf.math.divide_no_nan(tf.reduce_sum(losses * mask, axis=axes), tf.reduce_sum(mask, axis=axes))

    return per_example


def _unreduced(loss):
    """unreduced(y_true, y_pred) -> ([B, ...], the mask that the loss itself sets on its values, or None)."""
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        return lambda y_true, y_pred: _of_function(_crossentropy(y_true, y_pred))(y_true, y_pred)
    try:
        resolved = keras.losses.get(loss)
    except ValueError:
        raise ValueError(
            f"`loss` must be the name of a Keras loss, a function or an object. Received: loss={loss!r}"
        ) from None
    return _of_object(resolved) if isinstance(resolved, keras.losses.Loss) else _of_function(resolved)


def _of_object(loss):
    """A `keras.losses.Loss` without its reduction."""

    def unreduced(y_true, y_pred):
        given, own = keras_internals.mask(y_pred), []

        def call(y_true, y_pred, *args, **kwargs):
            if given is not None:
                keras_internals.attach_mask(y_pred, given)
            values = loss.call(y_true, y_pred, *args, **kwargs)
            own.append(keras_internals.mask(values))
            return tf.identity(values)

        # The reduction is an attribute of the user's object, which must not change. A copy from its configuration would
        # lose attributes that `get_config` leaves out. So Keras' conversions, or the `__call__` of a subclass, run on
        # another object that shares all other attributes. This object sees no mask, because Keras would multiply the
        # mask into losses that it may not fit, across examples.
        twin = object.__new__(type(loss))
        vars(twin).update(vars(loss), reduction="none", call=call)
        values = tf.convert_to_tensor(twin(y_true, tf.identity(y_pred)))
        return values, own[-1] if own else None

    return unreduced


def _of_function(function):
    """A function (y_true, y_pred) -> [B, ...], with arguments as Keras passes them."""

    def unreduced(y_true, y_pred):
        y_true, y_pred = _as_keras_passes_them(y_true, y_pred)
        values = _called(function, y_true, y_pred)
        return tf.convert_to_tensor(values), keras_internals.mask(values)

    return unreduced


def _called(function, y_true, y_pred):
    if not (y_true.dtype.is_integer or y_true.dtype.is_bool):
        return function(y_true, y_pred)
    try:
        # Keras passes floats only.
        return function(tf.cast(y_true, y_pred.dtype), y_pred)
    except Exception:  # noqa: BLE001 - TensorFlow raises errors of many types for floats in place of integers
        return function(y_true, y_pred)


def _crossentropy(y_true, y_pred):
    """The loss function that Keras chooses for "crossentropy", by the shapes."""
    y_shape, shape = tf.TensorShape(y_true.shape), tf.TensorShape(y_pred.shape)
    if shape[-1] == 1:
        return keras.losses.binary_crossentropy
    if y_shape.rank < shape.rank or y_shape[-1] == 1:
        return keras.losses.sparse_categorical_crossentropy
    return keras.losses.categorical_crossentropy


def _as_keras_passes_them(y_true, y_pred):
    """Floats in one precision, at least single, and a last axis of size 1 in both tensors or in none."""
    y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
    if y_pred.dtype.size < 4:
        y_pred = tf.cast(y_pred, tf.float32)
    if y_true.dtype.is_floating:
        y_true = tf.cast(y_true, y_pred.dtype)
    if y_true.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
        y_true = tf.expand_dims(y_true, -1)
    elif y_true.shape.rank == y_pred.shape.rank + 1 and y_true.shape[-1] == 1:
        y_true = tf.squeeze(y_true, -1)
    return y_true, y_pred


def _matched_rank(argument, weights, losses):
    """Weights [B, ...] of the losses' type and rank, by adding or removing last axes of size 1."""
    weights = tf.cast(weights, losses.dtype)
    while weights.shape.rank > losses.shape.rank and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, -1)
    if weights.shape.rank > losses.shape.rank:
        raise ValueError(
            f"`{argument}` must hold one value per example, or one per value of the loss, of shape {losses.shape}. "
            f"Received: {argument} of shape {weights.shape}"
        )
    while weights.shape.rank < losses.shape.rank:
        weights = tf.expand_dims(weights, -1)
    return weights
