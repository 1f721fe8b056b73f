"""The slow, obvious versions that tests compare with, written once: losses, networks, clipped sums by definition.

from tests import oracles

norms, sums = oracles.clipped_sum(model, oracles.squared_error, x, y, bound=0.5)    # eq. (2) without its noise
"""

import keras
import numpy as np
import tensorflow as tf


def squared_error(y, predictions):
    """The mean squared error of each example, [B]."""
    return tf.reduce_mean(tf.square(tf.cast(predictions, y.dtype) - y), axis=-1)


def cross_entropy(y, logits):
    """The cross entropy of each example, [B], from labels and logits."""
    return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)


def model_of(function, shape=(4,), dtype="float32"):
    """The functional model of a function of one input."""
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, function(inputs))


def between_dense(function, shape):
    """A model in float64 of a Dense layer of the same width, the function, and Dense outputs, with moved weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, dtype="float64")
    x = function(keras.layers.Dense(shape[-1], dtype="float64")(inputs))
    outputs = keras.layers.Dense(2, dtype="float64")(keras.layers.Flatten(dtype="float64")(x))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + 0.3 * rng.normal(size=weight.shape))
    return model


def length(tensors):
    """The L2 norm of some tensors together."""
    return np.sqrt(sum(np.sum(np.square(tensor)) for tensor in tensors))


def gradients(model, loss_fn, x, y):
    """Each example's gradient in NumPy float64, a list over the weights: one backward pass per example."""
    weights = [weight.value for weight in model.trainable_weights]
    found = []
    for i in range(len(y)):
        one = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], x)
        with tf.GradientTape() as tape:
            loss = loss_fn(y[i : i + 1], model(one, training=True))
        slopes = tape.gradient(loss, weights, unconnected_gradients="zero")
        found.append([np.asarray(tf.convert_to_tensor(slope), np.float64) for slope in slopes])
    return found


def flat(bound):
    """A gradient scaled down to a norm of at most `bound`."""
    return lambda gradient: [part * min(1.0, bound / length(gradient)) for part in gradient]


def clipped_sum(model, loss_fn, x, y, bound=None, *, clipped=None, kept=None):
    """The norms [B] of the examples' gradients, and the sum of the clipped gradients, in NumPy float64.

    Args:
        model: a built Keras model.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...].
        y: targets [B, ...].
        bound: on the norm of the whole gradient.
        clipped: clipped(gradient) -> the clipped gradient, in place of a bound.
        kept: [B], False for examples to leave out of the sum. Defaults to all.
    """
    clipped = flat(bound) if clipped is None else clipped
    each = gradients(model, loss_fn, x, y)
    sums = [np.zeros(weight.shape) for weight in model.trainable_weights]
    for i, gradient in enumerate(each):
        if kept is None or kept[i]:
            sums = [total + part for total, part in zip(sums, clipped(gradient), strict=True)]
    return np.array([length(gradient) for gradient in each]), sums


def relative_errors(found, expected):
    """How far norms and sums are from the expected ones, relative to the largest norm and to the whole sum."""
    norms, sums = found
    of_norms = np.max(np.abs(np.asarray(norms, np.float64) - expected[0]) / expected[0].max())
    parts = [np.asarray(one, np.float64) - other for one, other in zip(sums, expected[1], strict=True)]
    return of_norms, length(parts) / length(expected[1])
