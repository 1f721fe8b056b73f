"""Keras' masks on a model's outputs, which its metrics look for and no loop or map of TensorFlow hands on.

predictions = prediction_masks.attached(model, x, predictions)    # as if from model(x), for compute_metrics
"""

import keras
import tensorflow as tf

from noisy_sgd import keras_internals


def of_any(tensors) -> bool:
    """Whether any tensor of a nest carries a mask."""
    return any(keras_internals.mask(tensor) is not None for tensor in keras.tree.flatten(tensors))


def beside(weights):
    """Sample weights [B] as [B, 1], since Keras' metrics multiply them with masks [B, T]; a nest, or None."""

    def expanded(weight):
        return tf.expand_dims(weight, -1) if weight is not None and len(weight.shape) == 1 else weight

    return keras.tree.map_structure(expanded, weights)


def attached(model: keras.Model, x, predictions):
    """The same predictions with the masks that the model's own call leaves on them.

    Args:
        model: a built Keras model.
        x: the inputs of the predictions, any nest of [B, ...].
        predictions: a nest like the model's outputs.
    """
    # In a graph only the masks are computed: what nothing uses is pruned.
    outputs = keras.tree.flatten(model(x, training=False))
    found = [tf.identity(prediction) for prediction in keras.tree.flatten(predictions)]
    for prediction, output in zip(found, outputs, strict=True):
        if keras_internals.mask(output) is not None:
            keras_internals.attach_mask(prediction, keras_internals.mask(output))
    return keras.tree.pack_sequence_as(predictions, found)
