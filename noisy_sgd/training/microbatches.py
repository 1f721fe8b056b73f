"""Splits a batch into microbatches of one size, and processes them one after the other, to bound the memory.

predictions = microbatches.map_in_order(lambda microbatch, mask: model(microbatch), x, size, 32)
"""

import tensorflow as tf


def map_in_order(function, batch, size, microbatch_size):
    """Calls a function on each microbatch, at least on one; the last microbatch is padded.

    Args:
        function: function(microbatch, mask) -> a nest of [microbatch_size, ...]; `mask` [microbatch_size] is False for
            padding.
        batch: any nest of [size, ...].
        size: the number of examples of the batch, a scalar tensor; it may be 0.
        microbatch_size: an integer or a scalar tensor.

    Returns:
        The function's results for the whole batch, [size, ...], without the padding.
    """
    count = tf.maximum((size + microbatch_size - 1) // microbatch_size, 1)
    padded = tf.nest.map_structure(lambda t: _split(t, count, microbatch_size, size), batch)
    mask = tf.reshape(tf.range(count * microbatch_size) < size, [count, microbatch_size])
    with tf.name_scope("first_microbatch"):
        first = function(tf.nest.map_structure(lambda t: t[0], padded), mask[0])
    results = tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, size=count, element_shape=t.shape).write(0, t), first
    )

    def body(index, results):
        result = function(tf.nest.map_structure(lambda t: t[index], padded), mask[index])
        return index + 1, tf.nest.map_structure(lambda array, t: array.write(index, t), results, result)

    _, results = tf.while_loop(lambda index, _: index < count, body, (tf.constant(1), results), parallel_iterations=1)
    return tf.nest.map_structure(lambda array: _joined(array.stack())[:size], results)


def _split(tensor, count, microbatch_size, size):
    tensor = tf.convert_to_tensor(tensor)
    padding = [[0, count * microbatch_size - size]] + [[0, 0]] * (tensor.shape.rank - 1)
    return tf.reshape(tf.pad(tensor, padding), tf.concat([[count, microbatch_size], tf.shape(tensor)[1:]], axis=0))


def _joined(stacked):
    return tf.reshape(stacked, tf.concat([[-1], tf.shape(stacked)[2:]], axis=0))
