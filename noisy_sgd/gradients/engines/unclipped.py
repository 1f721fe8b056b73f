"""The ordinary gradient, as a sum over a microbatch: what SGD and Noisy-SGD accumulate.

losses, predictions, values = plain.gradient_sum(model, loss_fn, x, y, mask=mask)
"""

import tensorflow as tf

from noisy_sgd.gradients.engines import vectorized


def gradient_sum(model, loss_fn, x, y, *, mask=None, views: int = 1):
    """The gradient of the sum of the losses of the examples that are not padding.

    Args:
        model: a built Keras model.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        mask: [B], 0 for padding. Defaults to no padding.
        views: augmented views of an example; its loss is the mean over them. Defaults to 1.

    Returns:
        (losses [B], predictions, values): predictions are the mean over the views, `values` is aligned with
        `model.trainable_weights`.
    """
    weights = [weight.value for weight in model.trainable_weights]
    if mask is not None:
        present = tf.cast(mask, tf.bool)
        x, y = vectorized.only_present((x, y), present)
    if views > 1:
        x = tf.nest.map_structure(lambda t: tf.reshape(t, tf.concat([[-1], tf.shape(t)[2:]], axis=0)), x)
        y = tf.nest.map_structure(lambda t: tf.repeat(t, views, axis=0), y)
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        losses = loss_fn(y, predictions)
        if views > 1:
            losses = _mean_over_views(losses, views)
        if mask is not None:
            losses = tf.where(present, losses, tf.zeros_like(losses))
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients="zero")
    if views > 1:
        predictions = tf.nest.map_structure(lambda t: _mean_over_views(t, views), predictions)
    return losses, predictions, [tf.convert_to_tensor(gradient) for gradient in gradients]


def _mean_over_views(tensor, views):
    """[B * views, ...] -> [B, ...]."""
    return tf.reduce_mean(tf.reshape(tensor, tf.concat([[-1, views], tf.shape(tensor)[1:]], axis=0)), axis=1)
