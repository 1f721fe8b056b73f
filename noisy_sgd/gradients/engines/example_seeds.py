"""A seed of its own for every example, in layers that draw random numbers, such as Dropout.

Keras' layers take a seed from a `keras.random.SeedGenerator`, once per call. The vectorized engine traces one call for
all examples, so every example would get the same mask. Inside this context each example gets the seed combined with its
index and its replica.

    with example_seeds.folded_into_seeds(model, index):
        predictions = model(one_example, training=True)

Covered by tests/gradients/clipped_sum_test.py.
"""

import contextlib

import keras
import tensorflow as tf

from noisy_sgd import keras_internals

# Large strides, so that neighboring examples, replicas and layers never share a seed.
_EXAMPLE_STRIDE = 2_654_435_761
_REPLICA_STRIDE = 11_400_714_819_323_198_485 % 2**62


@contextlib.contextmanager
def folded_into_seeds(model: keras.Model, index: tf.Tensor):
    """Makes the model's seed generators return seeds of the example's own, during a trace.

    Args:
        model: a Keras model.
        index: scalar int64, the example's place in the microbatch.
    """
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None else tf.cast(context.replica_id_in_sync_group, tf.int64)
    offset = tf.stack([index * _EXAMPLE_STRIDE + replica * _REPLICA_STRIDE, tf.zeros([], tf.int64)])
    generators = keras_internals.seed_generators(model)
    for generator in generators:
        generator.next = _folded(generator.next, offset)
    try:
        yield
    finally:
        for generator in generators:
            del generator.next


def _folded(original_next, offset):
    return lambda ordered=True: tf.cast(original_next(ordered), tf.int64) + offset
