"""The batches that a sampling scheme draws from arrays in memory: whole, of any size, or padded, with a mask.

scheme = noisy_sgd.sampling.Poisson(len(images), batch_size=256, seed=noisy_sgd.keys.secret())
for x, y in array_batches.whole(scheme, (images, labels), num_steps=100):
    ...                                             # x [size of the step's batch, ...], which may be 0
for (x, y), mask in array_batches.padded(scheme, (images, labels), 64, num_steps=100):
    ...                                             # x [64, ...]; num_microbatches(scheme, step, 64) of them per step
"""

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.data import autotuning, streaming


def whole(scheme, arrays, *, first_step: int = 0, num_steps: int | None = None) -> tf.data.Dataset:
    """The batches of consecutive steps, each as large as the scheme draws it.

    Args:
        scheme: a `noisy_sgd.sampling.Scheme` with a seed.
        arrays: any nest of arrays [N, ...] or dense tensors. Floating-point numbers become Keras' `floatx`, as in
            Keras' own batches.
        first_step: Defaults to 0.
        num_steps: how many steps. Defaults to None, no end.

    Returns:
        A dataset of the nest, each entry [size(step), ...].

    Raises:
        ValueError: for arrays that hold another number of examples than the scheme draws from, or that are sparse.
    """
    arrays = _tensors(arrays, scheme)

    def batch(step):
        indices = tf.ensure_shape(tf.numpy_function(_indices(scheme), [step], tf.int64), [None])
        return _rows(arrays, indices)

    batches = _steps(first_step, num_steps).map(batch, num_parallel_calls=2, deterministic=True)
    return autotuning.off(batches.prefetch(2))


def padded(
    scheme, arrays, microbatch_size: int, *, first_step: int = 0, num_steps: int | None = None
) -> tf.data.Dataset:
    """The same batches cut into microbatches of one shape, the last one of a step padded with the first example.

    Args:
        scheme: as in `whole`.
        arrays: as in `whole`.
        microbatch_size: m, examples of a microbatch.
        first_step: Defaults to 0.
        num_steps: how many steps. Defaults to None, no end.

    Returns:
        A dataset of (the nest, each entry [m, ...]; mask bool [m], False for padding). Step t has
        `streaming.num_microbatches(scheme, t, m)` microbatches, at least one.

    Raises:
        ValueError: as `whole`, or for a size below 1.
    """
    arrays = _tensors(arrays, scheme)
    size = checks.count("microbatch_size", microbatch_size)

    def draw(step):
        return streaming.microbatches(scheme.indices(int(step)), size)

    def cut(step):
        indices, mask = tf.numpy_function(draw, [step], [tf.int64, tf.bool])
        return tf.ensure_shape(indices, [None, size]), tf.ensure_shape(mask, [None, size])

    microbatches = _steps(first_step, num_steps).map(cut).unbatch()
    microbatches = microbatches.map(lambda indices, mask: (_rows(arrays, indices), mask))
    return autotuning.off(microbatches.prefetch(2))


def _steps(first_step, num_steps):
    first = checks.count("first_step", first_step, least=0)
    count = 2**62 - first if num_steps is None else checks.count("num_steps", num_steps, least=0)
    return tf.data.Dataset.range(first, first + count)


def _indices(scheme):
    return lambda step: scheme.indices(int(step))


def _rows(arrays, indices):
    return tf.nest.map_structure(lambda array: tf.gather(array, indices), arrays)


def _tensors(arrays, scheme):
    def tensor(array):
        if isinstance(array, tf.SparseTensor | tf.RaggedTensor):
            raise ValueError(
                "`arrays` must be dense for batches to be drawn from them; convert them by tf.sparse.to_dense or "
                f"to_tensor. Received: an array of type {type(array).__name__}"
            )
        array = array if tf.is_tensor(array) else np.asarray(array)
        whole = tf.convert_to_tensor(array)
        if whole.dtype.is_floating:
            whole = tf.cast(whole, keras.config.floatx())
        if whole.shape.rank == 0 or whole.shape[0] != scheme.num_examples:
            raise ValueError(
                f"`arrays` must hold the {scheme.num_examples} examples that the scheme draws from. "
                f"Received: an array of shape {tuple(whole.shape)}"
            )
        return whole

    return tf.nest.map_structure(tensor, arrays)
