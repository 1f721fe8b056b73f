"""Streams the microbatches of a run's logical batches: one shape, padded, with a mask.

A `noisy_sgd.sampling` scheme says which examples step t sees. The indices of a logical batch are padded to whole
microbatches, and a mask says which of them count. Only the indices of a whole logical batch exist at once. Images are
read one microbatch at a time, and each worker reads its own microbatches.

    scheme = sampling.Poisson(digits.num_train_examples, batch_size=256, seed=7)
    for images, labels, mask in streaming.stream(digits, scheme, 64, first_step=0, num_steps=10):
        ...                                    # streaming.num_microbatches(scheme, step, 64) of them per step
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from noisy_sgd.data import autotuning

# Indices per call into Python: enough that the call (0.2 ms) is negligible for a step of a small model.
_INDICES_A_CALL = 8192
# Microbatches that are read at a time: while one is decoded, the next one's records come from the disk.
_READS_AT_A_TIME = 2


def num_microbatches(scheme, step: int, microbatch_size: int, multiple_of: int = 1) -> int:
    """How many microbatches `stream` yields for a step: the fewest that hold its batch, at least `multiple_of`."""
    _check(microbatch_size, multiple_of)
    return _whole(scheme.size(step), microbatch_size, multiple_of)


def microbatches(indices: np.ndarray, microbatch_size: int, multiple_of: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a logical batch into microbatches of one shape, padded with index 0 and mask False.

    Args:
        indices: [batch], in order.
        microbatch_size: m, examples of a microbatch.
        multiple_of: pads to a multiple of this many microbatches, the number of replicas. Defaults to 1.

    Returns:
        Indices int64 [microbatches, m] and mask bool [microbatches, m]. An empty batch has `multiple_of` microbatches
        of padding.

    Raises:
        ValueError: for a size or a multiple below 1.
    """
    _check(microbatch_size, multiple_of)
    count = _whole(len(indices), microbatch_size, multiple_of)
    padded = np.zeros(count * microbatch_size, np.int64)
    padded[: len(indices)] = indices
    mask = np.arange(count * microbatch_size) < len(indices)
    return padded.reshape(count, microbatch_size), mask.reshape(count, microbatch_size)


def stream(
    image_set,
    scheme,
    microbatch_size: int,
    *,
    first_step: int = 0,
    num_steps: int,
    multiple_of: int = 1,
    worker: tuple[int, int] = (0, 1),
    augment: Callable | None = None,
) -> tf.data.Dataset:
    """The microbatches of consecutive steps, one after the other.

    The tail of a stream from step 0 is the stream from `first_step`. Every worker draws all indices, which is
    cheap, and reads only the images of its own microbatches. Padding is zeros and reads no image.

    Args:
        image_set: a `bundled.ImageSet`, or another object with its `name`, `train_image_shape`, `num_train_examples`
            and `train_reader()`. An example that is read with the label -1 has no image, and becomes padding.
        scheme: a `noisy_sgd.sampling.Scheme` with a seed.
        microbatch_size: m, examples of a microbatch.
        first_step: Defaults to 0.
        num_steps: how many steps to stream.
        multiple_of: pads every step to a multiple of this many microbatches, the number of replicas of all workers.
            Defaults to 1.
        worker: (index, count). Of every `multiple_of` consecutive microbatches this worker gets its contiguous share,
            `multiple_of / count` of them. Defaults to (0, 1), all of them.
        augment: augment(images [m, ...], indices [m], step) -> images [m, ...] or [m, views, ...], of TensorFlow's
            operations, as `augmentation.make` makes it. Defaults to None, the images as they are.

    Returns:
        A dataset of images uint8 [m, height, width, channels] or what `augment` makes of them, labels int32 [m] and
        mask bool [m]; step t has `num_microbatches(scheme, t, microbatch_size, multiple_of)` of them, over all
        workers.

    Raises:
        ValueError: for a size or a multiple below 1, a scheme for another number of examples, or workers that do not
            divide `multiple_of`.
    """
    _check(microbatch_size, multiple_of)
    if scheme.num_examples != image_set.num_train_examples:
        raise ValueError(
            f"`scheme` must draw from the {image_set.num_train_examples} training images of {image_set.name}. "
            f"Received: num_examples={scheme.num_examples}"
        )
    index, workers = worker
    if not 0 <= index < workers or multiple_of % workers:
        raise ValueError(
            f"`worker` must be (index, count) with index below count, and count a divisor of the {multiple_of} "
            f"microbatches that `multiple_of` asks for at a time. Received: worker={worker}"
        )
    share = multiple_of // workers
    steps_a_call = max(
        1, _INDICES_A_CALL // (_whole(scheme.batch_size, microbatch_size, multiple_of) * microbatch_size)
    )
    end = first_step + num_steps

    def draw(first):
        steps = range(int(first), min(int(first) + steps_a_call, end))
        parts = []
        for step in steps:
            indices, mask = microbatches(scheme.indices(step), microbatch_size, multiple_of)
            own = np.arange(len(mask)) % multiple_of // share == index
            parts.append((indices[own], mask[own], np.full(own.sum(), step)))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def cut(first):
        indices, mask, steps = tf.numpy_function(draw, [first], [tf.int64, tf.bool, tf.int64])
        shape = [None, microbatch_size]
        return tf.ensure_shape(indices, shape), tf.ensure_shape(mask, shape), tf.ensure_shape(steps, [None])

    read = image_set.train_reader()

    def fetch(indices, mask, step):
        count = tf.math.count_nonzero(mask)

        def read_and_pad():
            images, labels = read(indices[:count])
            padding = microbatch_size - count
            images = tf.pad(images, [[0, padding], [0, 0], [0, 0], [0, 0]])
            labels = tf.pad(labels, [[0, padding]])
            return tf.ensure_shape(images, [microbatch_size, *image_set.train_image_shape]), labels

        def nothing():
            return tf.zeros([microbatch_size, *image_set.train_image_shape], tf.uint8), tf.zeros(
                [microbatch_size], tf.int32
            )

        images, labels = tf.cond(count > 0, read_and_pad, nothing)
        if augment is not None:
            images = augment(images, indices, step)
        labels = tf.ensure_shape(labels, [microbatch_size])
        # What has no image is padding: it contributes nothing, and the divisor is still the configured batch size.
        return images, tf.maximum(labels, 0), tf.logical_and(mask, labels >= 0)

    chunks = tf.data.Dataset.range(first_step, end, steps_a_call).map(cut).prefetch(1)
    read_ahead = chunks.unbatch().map(fetch, num_parallel_calls=_READS_AT_A_TIME, deterministic=True)
    return autotuning.off(read_ahead.prefetch(2 * share))


def _whole(size: int, microbatch_size: int, multiple_of: int) -> int:
    """Microbatches that hold `size` examples, rounded up to a multiple, at least one multiple."""
    return max(1, -(-size // (microbatch_size * multiple_of))) * multiple_of


def _check(microbatch_size: int, multiple_of: int) -> None:
    """Raises ValueError for sizes below 1."""
    if microbatch_size < 1:
        raise ValueError(f"`microbatch_size` must be at least 1. Received: microbatch_size={microbatch_size}")
    if multiple_of < 1:
        raise ValueError(f"`multiple_of` must be at least 1. Received: multiple_of={multiple_of}")
