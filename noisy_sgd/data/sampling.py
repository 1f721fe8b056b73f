"""Logical batches: which examples a step sees, cut into microbatches of one shape, and streamed.

A sampler says which examples step t sees, as a pure function of (seed, t), so that a run can stop and resume anywhere.
`ShuffledBatches` visits every example once an epoch, in a fresh order. The indices of a logical batch are padded to
whole microbatches, and a mask says which of them count; only indices are ever as many as the logical batch, the images
are gathered one microbatch at a time.

    sampler = sampling.ShuffledBatches(len(digits.train_labels), batch_size=256, seed=7)
    for images, labels, mask in sampling.stream(digits, sampler, 64, first_step=0, num_steps=10):
        ...                                    # sampling.num_microbatches(sampler, step, 64) of them a step
"""

import numpy as np
import tensorflow as tf

from noisy_sgd import keys
from noisy_sgd.data import bundled

# Indices that one call into Python makes, enough that the call (0.2 ms) costs a step of a small model nothing.
_INDICES_A_CALL = 8192


class ShuffledBatches:
    """Batches of a fixed size from a fresh permutation each epoch; the last batch of an epoch may be smaller.

    Args:
        num_examples: number of examples to draw from.
        batch_size: examples of a logical batch.
        seed: integer; the orders are a function of it alone.

    Raises:
        ValueError: for a batch size below 1 or above the number of examples.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int):
        if not 1 <= batch_size <= num_examples:
            raise ValueError(
                f"`batch_size` must be between 1 and the number of examples, {num_examples}. "
                f"Received: batch_size={batch_size}"
            )
        self.num_examples = int(num_examples)
        self.batch_size = int(batch_size)
        self.seed = seed
        self._key = [word % 2**64 for word in keys.derive(seed, "order")]
        self._current = (-1, None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the last, smaller one among them."""
        return -(-self.num_examples // self.batch_size)

    def size(self, step: int) -> int:
        """Number of examples of a step's batch, without drawing it."""
        position = self._position(step)[1]
        return min(self.batch_size, self.num_examples - position)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, int64 [size(step)]."""
        epoch, position = self._position(step)
        return self._permutation(epoch)[position : position + self.batch_size]

    def _position(self, step: int) -> tuple[int, int]:
        if step < 0:
            raise ValueError(f"`step` must not be negative. Received: step={step}")
        epoch, batch = divmod(int(step), self.steps_per_epoch)
        return epoch, batch * self.batch_size

    def _permutation(self, epoch: int) -> np.ndarray:
        # One assignment of a pair: a thread that reads while another writes sees a whole epoch, the old or the new one.
        cached, permutation = self._current
        if cached != epoch:
            # The counter's high words hold the epoch, its low ones count draws: no two epochs share any.
            generator = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, epoch, 0]))
            permutation = generator.permutation(self.num_examples)
            permutation.setflags(write=False)
            self._current = (epoch, permutation)
        return permutation


def num_microbatches(sampler, step: int, microbatch_size: int, multiple_of: int = 1) -> int:
    """How many microbatches `stream` yields for a step: the fewest that hold its batch, at least `multiple_of`."""
    _check(microbatch_size, multiple_of)
    return _whole(sampler.size(step), microbatch_size, multiple_of)


def microbatches(indices: np.ndarray, microbatch_size: int, multiple_of: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a logical batch into microbatches of one shape, padded with index 0 and mask False.

    Args:
        indices: [batch], in order.
        microbatch_size: m, examples of a microbatch.
        multiple_of: pads to a multiple of so many microbatches, the number of replicas. Defaults to 1.

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
    image_set: bundled.ImageSet,
    sampler,
    microbatch_size: int,
    *,
    first_step: int = 0,
    num_steps: int,
    multiple_of: int = 1,
) -> tf.data.Dataset:
    """The microbatches of consecutive steps, one after the other.

    The tail of a stream from step 0 is the stream from `first_step`.

    Args:
        image_set: images and labels; its training set is read.
        sampler: `ShuffledBatches`, or what else has `num_examples`, `batch_size`, `indices(step)` and
            `size(step)`.
        microbatch_size: m, examples of a microbatch.
        first_step: Defaults to 0.
        num_steps: how many steps to stream.
        multiple_of: pads every step to a multiple of so many microbatches, the number of replicas. Defaults to 1.

    Returns:
        A dataset of images uint8 [m, height, width, channels], labels int32 [m] and mask bool [m]; step t has
        `num_microbatches(sampler, t, microbatch_size, multiple_of)` of them.

    Raises:
        ValueError: for a size or a multiple below 1, or a sampler for another number of examples.
    """
    _check(microbatch_size, multiple_of)
    if sampler.num_examples != len(image_set.train_labels):
        raise ValueError(
            f"`sampler` must draw from the {len(image_set.train_labels)} training images of {image_set.name}. "
            f"Received: num_examples={sampler.num_examples}"
        )
    steps_a_call = max(
        1, _INDICES_A_CALL // (_whole(sampler.batch_size, microbatch_size, multiple_of) * microbatch_size)
    )
    end = first_step + num_steps

    def draw(first):
        steps = range(int(first), min(int(first) + steps_a_call, end))
        parts = [microbatches(sampler.indices(step), microbatch_size, multiple_of) for step in steps]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def cut(first):
        indices, mask = tf.numpy_function(draw, [first], [tf.int64, tf.bool])
        return tf.ensure_shape(indices, [None, microbatch_size]), tf.ensure_shape(mask, [None, microbatch_size])

    # Outside the map: a constant made within it would be written into the graph, image by image.
    # On the CPU: the pipeline runs there, and the images may be more than the accelerator's memory holds.
    with tf.device("CPU:0"):
        images, labels = tf.constant(image_set.train_images), tf.constant(image_set.train_labels)

    def gather(indices, mask):
        return tf.gather(images, indices), tf.gather(labels, indices), mask

    chunks = tf.data.Dataset.range(first_step, end, steps_a_call).map(cut).prefetch(1)
    return chunks.unbatch().map(gather).prefetch(2 * multiple_of)


def _whole(size: int, microbatch_size: int, multiple_of: int) -> int:
    """Microbatches that hold `size` examples, rounded up to a multiple, at least one multiple."""
    return max(1, -(-size // (microbatch_size * multiple_of))) * multiple_of


def _check(microbatch_size: int, multiple_of: int) -> None:
    """Raises ValueError for sizes that cut nothing."""
    if microbatch_size < 1:
        raise ValueError(f"`microbatch_size` must be at least 1. Received: microbatch_size={microbatch_size}")
    if multiple_of < 1:
        raise ValueError(f"`multiple_of` must be at least 1. Received: multiple_of={multiple_of}")
