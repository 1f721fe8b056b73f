"""The ordinary gradient, as a sum over a microbatch: what SGD and Noisy-SGD accumulate.

result = unclipped.gradient_sum(model, loss_fn, x, y, mask=mask)
result.values    # the sum, aligned with model.trainable_weights
"""

import tensorflow as tf

from noisy_sgd.gradients import batch, clipping


def gradient_sum(model, loss_fn, x, y, *, mask=None, views: int = 1) -> clipping.Result:
    """The gradient of the sum of the losses of the examples that are not padding.

    Args:
        model: a built Keras model.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        mask: [B], 0 for padding. Defaults to no padding.
        views: augmented views of an example; its loss is the mean over them. Defaults to 1.

    Returns:
        A `clipping.Result` without norms.
    """
    return batch.compute(lambda examples: _gradient_sum(model, loss_fn, examples), x, y, mask, views)


def _gradient_sum(model, loss_fn, examples):
    weights = [weight.value for weight in model.trainable_weights]
    inputs, targets = examples.rows()
    with tf.GradientTape() as tape:
        predictions = model(inputs, training=True)
        losses = examples.without_padding(examples.mean_over_views(loss_fn(targets, predictions)))
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients="zero")
    values = [tf.convert_to_tensor(gradient) for gradient in gradients]
    return clipping.Result(losses=losses, predictions=examples.mean_over_views(predictions), norms=None, values=values)
