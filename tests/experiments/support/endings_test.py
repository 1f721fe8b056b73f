"""What a failure is called, whatever raised it."""

import errno

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.experiments.support import endings


class CauseTest(absltest.TestCase):
    def _failed(self, call):
        with self.assertRaises(Exception) as caught:
            call()
        return endings.cause(caught.exception)

    def test_an_operation_in_a_graph(self):
        @tf.function(autograph=False)
        def losses(labels):
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.zeros([2, 10]))

        found = self._failed(lambda: losses(tf.constant([1, 11])))
        self.assertStartsWith(found, "Received a label value of 11 which is outside the valid range of [0, 10)")
        self.assertNotIn("\n", found)

    def test_a_dataset(self):
        def lost(index):
            raise OSError("`data_dir` can no longer be read: there is gone; put it back")

        dataset = tf.data.Dataset.range(3).map(lambda index: tf.numpy_function(lost, [index], tf.int64))
        self.assertEqual(
            self._failed(lambda: next(iter(dataset))), "`data_dir` can no longer be read: there is gone; put it back"
        )

    def test_several_operations(self):
        text = "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  a is wrong\n\t [[{{node a}}]]\n  (1) CANCELLED: b"
        self.assertEqual(endings.cause(tf.errors.InvalidArgumentError(None, None, text)), "a is wrong")

    def test_others(self):
        for error, expected in (
            (OSError(errno.ENOSPC, "No space left on device", "here"), "here: No space left on device"),
            (OSError("gone"), "gone"),
            (ValueError("it is.\nnot"), "it is"),
            (MemoryError(), "MemoryError"),
            (np.linalg.LinAlgError("Singular matrix"), "Singular matrix"),
        ):
            self.assertEqual(endings.cause(error), expected)


if __name__ == "__main__":
    absltest.main()
