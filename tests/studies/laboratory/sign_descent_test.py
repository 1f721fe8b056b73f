import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.gradients import clipping
from noisy_sgd.studies.laboratory import sign_descent


class SignDescentTest(absltest.TestCase):
    def test_a_step_by_hand(self):
        weight = keras.Variable(np.array([1.0, -2.0, 3.0], np.float32))
        optimizer = sign_descent.SignSGD(0.25)
        optimizer.build([weight])
        optimizer.apply([tf.constant([0.1, -7.0, 0.0])])
        np.testing.assert_array_equal(weight.numpy(), [0.75, -1.75, 3.0])

    def test_the_private_step_takes_the_sign_after_the_noise(self):
        weight = keras.Variable(np.zeros(1_000, np.float32))
        optimizer = sign_descent.DPSignSGD(0.25, l2_norm_clip=2.0, noise_multiplier=1.5, batch_size=4, seed=3)
        optimizer.build([weight])
        values = [tf.constant(np.linspace(-1.0, 1.0, 1_000, dtype=np.float32))]
        noised = optimizer.noised(values, None, release=False)[0].numpy()
        optimizer.apply(clipping.ClippedSum(values=values, norms=tf.zeros([4]), l2_sensitivity=2.0))
        np.testing.assert_array_equal(weight.numpy(), -0.25 * np.sign(noised))
        # Noise of 3 on the sum turns many of the signs.
        self.assertBetween(np.mean(np.sign(noised) != np.sign(values[0])), 0.3, 0.5)

    def test_it_refuses_bare_gradients(self):
        optimizer = sign_descent.DPSignSGD(0.25, l2_norm_clip=2.0, noise_multiplier=1.5, batch_size=4)
        with self.assertRaisesRegex(TypeError, "clipped per example"):
            optimizer.apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])


if __name__ == "__main__":
    absltest.main()
