"""Datasets without the thread by which TensorFlow tunes their parallelism, for those whose parallelism is fixed.

When an iterator is deleted, the program waits for this thread, which may miss the notice and sleep on, for up to a
minute (TensorFlow 2.21).

    return autotuning.off(images.map(read, num_parallel_calls=2).prefetch(2))
"""

import tensorflow as tf


def off(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset with fixed parallelism: it must not ask for `tf.data.AUTOTUNE`."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
