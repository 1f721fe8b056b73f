"""Random bits by counter: Philox4x32-10 (Salmon et al. 2011) of many counters at once, in TensorFlow's operations.

TensorFlow's own stateless operations give one stream of numbers per key, position after position. An example's bits
must not depend on its position in the batch. Here the example's number is part of the counter.

    words = philox.bits(keys.derive(7, "augmentation"), [indices, step, view])   # uint64 [4, ...], each below 2**32
"""

import tensorflow as tf

_ROUNDS = 10
_WORD = 2**32 - 1
# Multipliers of the counter's first and third word, and the key's increments per round.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def bits(key: tuple[int, int], counter) -> tf.Tensor:
    """Four words of 32 random bits for every counter.

    Args:
        key: two integers, of which Philox uses the first, as two words.
        counter: up to four integer tensors that broadcast against each other, each in [0, 2**32); missing ones are 0.

    Returns:
        uint64 [4, ...], the words in [0, 2**32): independent of each other, and of those of every other counter.
    """
    first, second, third, fourth = (tf.cast(word, tf.uint64) for word in (*counter, *[0] * (4 - len(counter))))
    for index in range(_ROUNDS):
        round_key = [((key[0] >> 32 * row) + index * _INCREMENTS[row]) & _WORD for row in range(2)]
        left, right = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            _high(right) ^ second ^ round_key[0],
            right & _WORD,
            _high(left) ^ fourth ^ round_key[1],
            left & _WORD,
        )
    return tf.stack([first, second, third, fourth])


def below(words: tf.Tensor, limit: int) -> tf.Tensor:
    """Whole numbers in [0, limit), int32, even to one part in 2**32 / limit, from random words."""
    return tf.cast(_high(words * tf.constant(limit, tf.uint64)), tf.int32)


def _high(product: tf.Tensor) -> tf.Tensor:
    """The upper 32 of 64 bits."""
    return tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
