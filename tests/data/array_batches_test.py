"""Batches drawn from arrays: the rows that the scheme says, whole or padded, with a mask."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import sampling
from noisy_sgd.data import array_batches, streaming

X = np.arange(60, dtype=np.float64).reshape(20, 3)
Y = np.arange(20)


class ArrayBatchesTest(parameterized.TestCase):
    @parameterized.parameters(sampling.Poisson, sampling.Shuffled, sampling.RandomAllocation)
    def test_whole_batches_are_the_schemes(self, kind):
        scheme = kind(20, 6, seed=1)
        batches = list(array_batches.whole(scheme, {"x": X, "y": Y}, first_step=2, num_steps=9))
        self.assertLen(batches, 9)
        for step, batch in enumerate(batches, start=2):
            np.testing.assert_array_equal(batch["y"], scheme.indices(step))
            np.testing.assert_array_equal(batch["x"], X[scheme.indices(step)])
        self.assertEqual(batches[0]["x"].dtype, keras.config.floatx())

    def test_without_end(self):
        scheme = sampling.Poisson(20, 6, seed=1)
        batches = list(array_batches.whole(scheme, Y).take(3))
        np.testing.assert_array_equal(batches[2], scheme.indices(2))

    def test_padded_microbatches_hold_each_batch_once(self):
        scheme = sampling.Poisson(20, 6, seed=1)
        microbatches = iter(array_batches.padded(scheme, (X, Y), 4, num_steps=12))
        for step in range(12):
            taken = []
            for _ in range(streaming.num_microbatches(scheme, step, 4)):
                (x, y), mask = next(microbatches)
                self.assertEqual((x.shape, y.shape, mask.shape), ((4, 3), (4,), (4,)))
                np.testing.assert_array_equal(x, X[y])
                taken.append(y.numpy()[mask.numpy()])
            np.testing.assert_array_equal(np.concatenate(taken), scheme.indices(step))
        self.assertIsNone(next(microbatches, None))

    def test_other_arrays_are_refused(self):
        scheme = sampling.Poisson(20, 6, seed=1)
        with self.assertRaisesRegex(ValueError, "`arrays` must hold the 20 examples"):
            array_batches.whole(scheme, X[:19])
        with self.assertRaisesRegex(ValueError, "`arrays` must be dense"):
            array_batches.whole(scheme, tf.sparse.from_dense(X))


if __name__ == "__main__":
    absltest.main()
