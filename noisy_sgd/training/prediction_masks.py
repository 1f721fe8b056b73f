"""Restores Keras' masks on a model's outputs: metrics need them, and TensorFlow's loops and maps lose them.

predictions = prediction_masks.attach(model, x, predictions)    # as if from model(x), for compute_metrics
"""

import keras
import tensorflow as tf

from noisy_sgd import keras_internals


def any_mask(tensors) -> bool:
    """Whether any tensor of a nest carries a mask."""
    return any(keras_internals.mask(tensor) is not None for tensor in keras.tree.flatten(tensors))


def expand_weights(weights):
    """Sample weights [B] as [B, 1], because Keras' metrics multiply them with masks [B, T]; a nest, or None."""

    def expanded(weight):
        return tf.expand_dims(weight, -1) if weight is not None and len(weight.shape) == 1 else weight

    return keras.tree.map_structure(expanded, weights)


def attach(model: keras.Model, x, predictions):
    """The predictions with the masks that a call of the model sets.

    Args:
        model: a built Keras model.
        x: the inputs that the predictions are for, any nest of [B, ...].
        predictions: a nest like the model's outputs.
    """
    # In a graph only the masks are computed, because TensorFlow prunes unused operations.
    outputs = keras.tree.flatten(model(x, training=False))
    copies = [tf.identity(prediction) for prediction in keras.tree.flatten(predictions)]
    for prediction, output in zip(copies, outputs, strict=True):
        if keras_internals.mask(output) is not None:
            keras_internals.attach_mask(prediction, keras_internals.mask(output))
    return keras.tree.pack_sequence_as(predictions, copies)
