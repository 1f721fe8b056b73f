"""The reference engine: every example's gradient by `tf.vectorized_map`, for any Keras model.

Each example passes through the model as a batch of one, so whatever the layers do, its gradient depends on it alone.
All gradients of a microbatch are in memory together, [B, number of weights]: the microbatch size bounds that. Where
TensorFlow cannot vectorize the model rightly, such as one with recurrent layers, the examples go one after the other
(see `example_map`), which is slower.

    result = vectorized.clipped_sum(model, loss_fn, x, y, clip=clipping.flat(1.0))
    result.values    # sums of clipped gradients, aligned with model.trainable_weights

Covered by tests/gradients/clipped_sum_test.py and tests/gradients/engines/example_map_test.py.
"""

import tensorflow as tf

from noisy_sgd.gradients import batch, clipping
from noisy_sgd.gradients.engines import example_map, example_seeds
from noisy_sgd.gradients.layer_rules.shared import contributions


def clipped_sum(model, loss_fn, x, y, *, clip, mask=None, views: int = 1) -> clipping.Result:
    """Sum over a microbatch of clip(norm) * gradient.

    Args:
        model: a built Keras model.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        clip: a `clipping.ClipFunction`, or any function from norms [B] to factors [B].
        mask: [B], 0 for padding, which contributes nothing at all. Defaults to no padding.
        views: augmented views of an example; its gradient is the mean over them, clipped once. Defaults to 1.

    Returns:
        A `clipping.Result`.
    """
    return batch.compute(lambda examples: _clipped_sum(model, loss_fn, examples, clip), x, y, mask, views)


def _clipped_sum(model, loss_fn, examples, clip):
    weights = [weight.value for weight in model.trainable_weights]
    dtype = max((weight.dtype for weight in weights), key=lambda dtype: dtype.size, default=tf.float32)
    indices = tf.range(tf.shape(tf.nest.flatten(examples.x)[0], tf.int64)[0])

    def one_example(example):
        index, inputs, targets = example
        inputs, targets = examples.rows_of_one(inputs, targets)
        with tf.GradientTape() as tape, example_seeds.folded_into_seeds(model, index):
            predictions = model(inputs, training=True)
            loss = tf.reduce_mean(loss_fn(targets, predictions))
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return loss, tf.nest.map_structure(lambda t: tf.reduce_mean(t, axis=0), predictions), gradients

    losses, predictions, gradients = example_map.over_examples(one_example, (indices, examples.x, examples.y), model)
    # Where sizes are unknown, the map knows none of its results'.
    gradients = [tf.ensure_shape(g, [None, *weight.shape]) for g, weight in zip(gradients, weights, strict=True)]
    choose = clipping.coordinates(clip)
    if choose is not None:
        # A zero would not remove a gradient that is not finite.
        chosen = [tf.cast(one, tf.bool) for one in choose(weights)]
        gradients = [tf.where(one, g, tf.zeros_like(g)) for one, g in zip(chosen, gradients, strict=True)]
    squares = [tf.cast(contributions.row_squares(flatten(g)), dtype) for g in gradients]
    layers = list(clipping.layers_of(model).values())
    if squares:
        norms, factors = clipping.norms_and_factors(clip, squares, layers, len(set(layers)), examples.present)
    else:
        norms, factors = tf.zeros_like(losses), []
    finite = tf.math.is_finite(norms)
    if examples.present is not None:
        finite = examples.present & finite
    values, remainder = [], []
    for gradient, factor in zip(gradients, factors, strict=True):
        safe = tf.where(finite[:, None], flatten(gradient), tf.zeros([], gradient.dtype))
        values.append(_weighted_sum(factor, safe, gradient.shape[1:]))
        if clipping.wants_remainder(clip):
            remainder.append(_weighted_sum(1 - factor, safe, gradient.shape[1:]))
    return clipping.Result(
        losses=examples.without_padding(losses),
        predictions=predictions,
        norms=examples.without_padding(norms),
        values=values,
        remainder=remainder if clipping.wants_remainder(clip) else None,
    )


def _weighted_sum(factors, rows, shape):
    return tf.reshape(tf.linalg.matvec(rows, tf.cast(factors, rows.dtype), transpose_a=True), shape)


def flatten(gradient: tf.Tensor) -> tf.Tensor:
    """[B, ...] as [B, size]."""
    known = gradient.shape[1:].num_elements()
    size = tf.math.reduce_prod(tf.shape(gradient)[1:]) if known is None else known
    return tf.reshape(gradient, [tf.shape(gradient)[0], size])
