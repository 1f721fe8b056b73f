"""The ordinary gradient, as a sum over a microbatch: what SGD and Noisy-SGD accumulate.

losses, predictions, values = unclipped.gradient_sum(model, loss_fn, x, y, mask=mask)

Covered by tests/gradients/clipped_sum_test.py and tests/training/private_model_test.py.
"""

import tensorflow as tf

from noisy_sgd.gradients import batch


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
    examples = batch.prepared(x, y, mask, views)
    inputs, targets = examples.rows()
    with tf.GradientTape() as tape:
        predictions = model(inputs, training=True)
        losses = examples.without_padding(examples.mean_over_views(loss_fn(targets, predictions)))
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients="zero")
    values = [tf.convert_to_tensor(gradient) for gradient in gradients]
    return losses, examples.mean_over_views(predictions), values
