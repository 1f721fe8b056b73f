"""Pipelines of fixed parallelism have no thread that tunes it, which may sleep for a minute when its iterator goes."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd import sampling
from noisy_sgd.data import array_batches, autotuning, bundled, streaming


class AutotuningTest(absltest.TestCase):
    def test_elements_stay_the_same(self):
        before = tf.data.Dataset.range(5).batch(2)
        after = autotuning.off(before)
        self.assertNotEqual(before.options().autotune.enabled, False)
        self.assertIs(after.options().autotune.enabled, False)
        for ours, theirs in zip(after, before, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_batches_of_a_sampling_scheme_have_none(self):
        images, scheme = bundled.load("digits"), sampling.Poisson(6, 2, seed=0)
        arrays = (images.train_images[:6], images.train_labels[:6])
        whole = sampling.Poisson(images.num_train_examples, 32, seed=0)
        for dataset in (
            array_batches.whole(scheme, arrays),
            array_batches.padded(scheme, arrays, 2),
            streaming.stream(images, whole, 32, num_steps=2),
        ):
            self.assertIs(dataset.options().autotune.enabled, False)


if __name__ == "__main__":
    absltest.main()
