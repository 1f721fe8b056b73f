"""Embedding: z_t = E[id_t]. An example's gradient has the rows sum_{t: id_t = v} dz_t, for the ids v it contains.

The squared norm is formed from these rows alone, never from the whole table.

Covered by tests/gradients/layer_rules/rules_test.py.
"""

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd.gradients.layer_rules.shared import contributions, registry


def forward(tape, layer, inputs):
    ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
    outputs = ops.cast(ops.take(registry.constant(layer.embeddings), ids, axis=0), layer.compute_dtype)
    return registry.Traced(outputs=outputs, taps=[outputs], saved=tf.where(ids < 0, ids + layer.input_dim, ids))


def gradients(layer, calls, microbatch):
    table = layer.embeddings
    width = table.shape[-1]
    ids = tf.concat([_by_unit(call.saved, [], microbatch) for call in calls], axis=1)
    rows = tf.concat([_by_unit(microbatch.cast(call.tap_gradients[0]), [width], microbatch) for call in calls], axis=1)

    ids, rows = _by_id(ids, rows)

    def sums(factors, tensors):
        scaled = tensors[0] * factors[:, None, None]
        return [tf.math.unsorted_segment_sum(tf.reshape(scaled, [-1, width]), tf.reshape(ids, [-1]), table.shape[0])]

    squared_norms = tf.reduce_sum(tf.reduce_sum(tf.square(rows), axis=2), axis=1)
    return [contributions.Contribution(weights=[table], squared_norms=squared_norms, tensors=[rows], sums=sums)]


def _by_unit(tensor, trailing, microbatch):
    """[units * views, ..., trailing] -> [units, positions, trailing]."""
    units = tf.shape(tensor)[0] // microbatch.views
    positions = tf.reduce_prod(tf.shape(tensor)[1 : tensor.shape.rank - len(trailing)]) * microbatch.views
    return tf.reshape(tensor, tf.concat([[units, positions], tf.constant(trailing, tf.int32)], axis=0))


def _by_id(ids, rows):
    """Sums the rows of equal ids within each example: after sorting, equal ids are adjacent and get one number.

    Norm and clipped sum both use these sums: rows that cancel would otherwise round differently in each.

    Returns:
        The ids [units, positions], -1 where there are fewer ids than positions, and the rows' sums.
    """
    units, positions, width = tf.shape(ids)[0], tf.shape(ids)[1], rows.shape[-1]
    order = tf.argsort(ids, axis=1)
    ids = tf.gather(ids, order, batch_dims=1)
    rows = tf.gather(rows, order, batch_dims=1)
    starts = tf.concat([tf.zeros_like(ids[:, :1]), tf.cast(ids[:, 1:] != ids[:, :-1], ids.dtype)], axis=1)
    number = tf.cast(tf.cumsum(starts, axis=1), tf.int32) + positions * tf.range(units)[:, None]
    number = tf.reshape(number, [-1])
    summed = tf.math.unsorted_segment_sum(tf.reshape(rows, [-1, width]), number, units * positions)
    distinct = tf.math.unsorted_segment_max(tf.reshape(ids, [-1]), number, units * positions)
    distinct = tf.maximum(distinct, tf.constant(-1, ids.dtype))
    return tf.reshape(distinct, [units, positions]), tf.reshape(summed, [units, positions, width])


registry.register(keras.layers.Embedding, registry.Rule(forward=forward, gradients=gradients))
