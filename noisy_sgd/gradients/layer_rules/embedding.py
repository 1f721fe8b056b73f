"""Embedding: z_t = E[id_t]. An example's gradient has the rows sum_{t: id_t = v} dz_t, for the ids v it contains.

The squared norm is formed from these rows alone, never from the whole table.

Covered by tests/gradients/layer_rules/rules_test.py.
"""

import dataclasses
import math

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import lora
from noisy_sgd.gradients.layer_rules.shared import contributions, registry


def forward(tape, layer, inputs):
    ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
    outputs = ops.cast(ops.take(registry.constant(layer.embeddings), ids, axis=0), layer.compute_dtype)
    return registry.Traced(outputs=outputs, taps=[outputs], saved=tf.where(ids < 0, ids + layer.input_dim, ids))


def lora_forward(tape, layer, inputs):
    ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
    ids = tf.where(ids < 0, ids + layer.input_dim, ids)
    table, small, wide = (
        registry.constant(weight) for weight in (keras_internals.stored_kernel(layer), *lora.matrices(layer))
    )
    small = ops.take(small, ids, axis=0)
    added = lora.scale(layer) * ops.matmul(small, wide)
    outputs = ops.cast(ops.take(table, ids, axis=0) + ops.cast(added, table.dtype), layer.compute_dtype)
    return registry.Traced(outputs=outputs, taps=[outputs], saved={"ids": ids, "small": small})


def lora_gradients(layer, calls, microbatch):
    table, (a, b) = keras_internals.stored_kernel(layer), lora.matrices(layer)
    looked_up = [dataclasses.replace(call, saved=call.saved["ids"]) for call in calls]
    groups = of_table(table, looked_up, microbatch) if table.trainable else []
    if a.trainable:
        wide = microbatch.cast(tf.convert_to_tensor(b)) * lora.scale(layer)
        wide = tf.transpose(wide)
        through = [
            dataclasses.replace(call, tap_gradients=[ops.matmul(microbatch.cast(call.tap_gradients[0]), wide)])
            for call in looked_up
        ]
        groups.extend(of_table(a, through, microbatch))
    if b.trainable:
        rank, width = b.shape
        small = [by_unit(microbatch.cast(call.saved["small"]), [rank], microbatch) for call in calls]
        slopes = [by_unit(microbatch.cast(call.tap_gradients[0]), [width], microbatch) for call in calls]
        pairs = zip(small, slopes, strict=True)
        per_example = tf.add_n([tf.matmul(one, slope, transpose_a=True) for one, slope in pairs])
        groups.append(contributions.kept(b, lora.scale(layer) * per_example))
    return groups


def gradients(layer, calls, microbatch):
    return of_table(layer.embeddings, calls, microbatch)


def of_table(table, calls, microbatch):
    """The contribution of a table whose rows of the saved ids have the gradients at the taps."""
    ids, rows = rows_by_id(calls, table.shape[-1], microbatch)

    def sums(factors, tensors):
        return [sum_rows(ids, tensors[0] * factors[:, None, None], table.shape[0])]

    squared_norms = tf.reduce_sum(contributions.row_squares(rows), axis=1)
    return [contributions.Contribution(weights=[table], squared_norms=squared_norms, tensors=[rows], sums=sums)]


def rows_by_id(calls, width, microbatch):
    """What `_by_id` returns for all calls, whose saved ids may be of any shape [units * views, ...]."""
    ids = tf.concat([by_unit(call.saved, [], microbatch) for call in calls], axis=1)
    rows = tf.concat([by_unit(microbatch.cast(call.tap_gradients[0]), [width], microbatch) for call in calls], axis=1)
    return _by_id(ids, rows)


def sum_rows(ids, rows, size):
    """[units, positions], [units, positions, width] -> the sums of the rows of each id, [size, width]."""
    return tf.math.unsorted_segment_sum(tf.reshape(rows, [-1, rows.shape[-1]]), tf.reshape(ids, [-1]), size)


def by_unit(tensor, trailing, microbatch):
    """[units * views, ..., trailing] -> [units, positions, trailing]."""
    inner = tensor.shape[1 : tensor.shape.rank - len(trailing)]
    if inner.is_fully_defined():
        return tf.reshape(tensor, [-1, math.prod(inner) * microbatch.views, *trailing])
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
    summed = tf.ensure_shape(tf.reshape(summed, [units, positions, width]), [*ids.shape, width])
    return tf.reshape(distinct, [units, positions]), summed


registry.register(
    keras.layers.Embedding,
    registry.Rule(
        forward=forward,
        gradients=gradients,
        lora=registry.Rule(forward=lora_forward, gradients=lora_gradients),
    ),
)
