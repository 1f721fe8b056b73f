"""The bits are Philox4x32-10's: the authors' known answers, and TensorFlow's own stream where it can be had."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.data import philox


class PhiloxTest(parameterized.TestCase):
    @parameterized.parameters(
        # From the authors' Random123, kat_vectors.
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1, 2**32 - 1), (2**32 - 1,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    )
    def test_known_answers(self, key, counter, expected):
        key = key[0] + 2**32 * key[1]
        for signed in (key, key - 2**64):
            words = philox.bits((signed, 0), counter)
            self.assertEqual(" ".join(f"{int(word):08x}" for word in words), expected)

    def test_is_tensorflows_stream_at_any_place(self):
        # TensorFlow counts up in the first two words.
        key, first = 0x0123456789ABCDEF, 77
        stream = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[400], key=[tf.constant(key, tf.uint64)], counter=tf.constant([first, 5], tf.uint64), alg=1,
            dtype=tf.uint32,
        )  # fmt: skip
        places = np.random.default_rng(0).permutation(100)
        words = philox.bits((key, 0), [first + places, 0, 5])
        np.testing.assert_array_equal(tf.transpose(words), np.reshape(stream, [100, 4])[places])

    def test_counters_broadcast_and_missing_ones_are_zero(self):
        rows, columns = tf.range(3, dtype=tf.int64)[:, tf.newaxis], tf.range(5)
        words = philox.bits((7, 8), [rows, 2**31, columns])
        self.assertEqual((words.shape, words.dtype), ((4, 3, 5), tf.uint64))
        for row in range(3):
            for column in range(5):
                single = philox.bits((7, 8), [row, 2**31, column, 0])
                np.testing.assert_array_equal(words[:, row, column], single)
        self.assertLess(int(tf.reduce_max(words)), 2**32)

    def test_below_is_even(self):
        words = tf.constant([0, 2**32 - 1, 2**31, 2**31 - 1, 2**32 // 3, 2**32 // 3 + 1], tf.uint64)
        np.testing.assert_array_equal(philox.below(words, 2), [0, 1, 1, 0, 0, 0])
        np.testing.assert_array_equal(philox.below(words, 3), [0, 2, 1, 1, 0, 1])


if __name__ == "__main__":
    absltest.main()
