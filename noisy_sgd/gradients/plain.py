"""The ordinary gradient, as a sum over a microbatch: what SGD and Noisy-SGD accumulate.

losses, predictions, values = plain.gradient_sum(model, loss_fn, x, y, mask=mask)
"""

import tensorflow as tf

from noisy_sgd.gradients import vectorized


def gradient_sum(model, loss_fn, x, y, *, mask=None):
    """The gradient of the sum of the losses of the examples that are not padding.

    Args:
        model: a built Keras model.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...].
        y: targets, any nest of [B, ...].
        mask: [B], 0 for padding. Defaults to no padding.

    Returns:
        (losses [B], predictions, values): `values` is aligned with `model.trainable_weights`.
    """
    weights = [weight.value for weight in model.trainable_weights]
    if mask is not None:
        present = tf.cast(mask, tf.bool)
        x, y = vectorized.only_present((x, y), present)
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        losses = loss_fn(y, predictions)
        if mask is not None:
            losses = tf.where(present, losses, tf.zeros_like(losses))
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients="zero")
    return losses, predictions, [tf.convert_to_tensor(gradient) for gradient in gradients]
