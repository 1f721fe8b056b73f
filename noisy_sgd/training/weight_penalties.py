"""Weight regularization. It does not depend on the data, so its gradient is added to the sum after clipping.

    values = weight_penalties.add_gradients(values, model.trainable_weights, scale=batch_size / replicas)

Covered by tests/training/private_model_test.py.
"""

import keras
import tensorflow as tf


def penalties(weights) -> list[tf.Tensor]:
    """The penalty of each regularized weight, a scalar."""
    return [weight.regularizer(weight.value) for weight in weights if weight.regularizer is not None]


def add_to_mean(losses: tf.Tensor, size: tf.Tensor, weights) -> tf.Tensor:
    """The mean of the losses [size], 0 for none, plus all penalties: what Keras shows as the loss."""
    mean = tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(size, losses.dtype))
    return tf.add_n([mean, *(tf.cast(penalty, losses.dtype) for penalty in penalties(weights))])


def add_gradients(values: list[tf.Tensor], weights: list[keras.Variable], scale: tf.Tensor) -> list[tf.Tensor]:
    """The sums plus `scale` times the gradients of the penalties.

    Args:
        values: one tensor for each weight.
        weights: the trainable weights.
        scale: a scalar.
    """
    regularized = [weight for weight in weights if weight.regularizer is not None]
    if not regularized:
        return values
    with tf.GradientTape() as tape:
        penalty = tf.add_n([tf.cast(each, tf.float32) for each in penalties(regularized)])
    gradients = tape.gradient(penalty, [weight.value for weight in regularized])
    by_path = dict(zip([weight.path for weight in regularized], gradients, strict=True))
    return [
        value + tf.cast(scale, value.dtype) * by_path[weight.path] if weight.path in by_path else value
        for value, weight in zip(values, weights, strict=True)
    ]
