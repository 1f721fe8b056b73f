import copy

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import keys
from noisy_sgd.gradients import clipping
from noisy_sgd.mechanisms import adaptive_clipping
from noisy_sgd.optimizers import noise_key, sgd
from noisy_sgd.training import distribution

SIZE = 4000
# The correlation of two independent draws has a standard deviation of SIZE^(-1/2).
INDEPENDENT = 5 / np.sqrt(SIZE)


def setUpModule():
    distribution.use_logical_devices(2)


class Released:
    """A DPSGD of momentum 0 on weights that start at 0; `step` returns the noise that a step releases."""

    def __init__(self, strategy="default", seed=None, learned=False):
        self.strategy = distribution.make_strategy(strategy)
        query = adaptive_clipping.AdaptiveClipping(learning_rate=0.0) if learned else None
        with self.strategy.scope():
            self.weight = keras.Variable(np.zeros(SIZE))
            self.optimizer = sgd.DPSGD(1.0, 1.0, 1.0, 1, seed=seed, adaptive_clipping=query)
            self.optimizer.build([self.weight])
        self.traced = tf.function(lambda: self.strategy.run(self._apply))

    def _apply(self):
        values = [tf.zeros([SIZE])]
        total = clipping.ClippedSum(values=values, norms=tf.zeros([0]), l2_sensitivity=1.0, statistic=tf.zeros([]))
        self.optimizer.apply(total, [self.weight])

    def step(self, traced=True):
        before = self.weight.numpy()
        (self.traced if traced else lambda: self.strategy.run(self._apply))()
        return before - self.weight.numpy()


def correlation(a, b):
    return abs(np.corrcoef(a, b)[0, 1])


class ReleasesTest(parameterized.TestCase):
    @parameterized.product(
        strategy=("default", "mirrored"), traced=(True, False), learned=(True, False), seed=(None, 3),
    )  # fmt: skip
    def test_a_step_that_comes_again_meets_other_noise(self, strategy, traced, learned, seed):
        released = Released(strategy, seed, learned)
        noise = [released.step(traced) for _ in range(3)]
        for back in (1, 1, 0):
            released.optimizer.iterations.assign(back)
            noise += [released.step(traced) for _ in range(2)]
        for index, one in enumerate(noise):
            self.assertAlmostEqual(one.std(), 1.0, delta=0.06)
            for other in noise[:index]:
                self.assertLess(correlation(one, other), INDEPENDENT)

    def test_a_restored_checkpoint_brings_no_noise_back(self):
        released = Released()
        released.step()
        checkpoint = tf.train.Checkpoint(optimizer=released.optimizer)
        path = checkpoint.write(self.create_tempdir().full_path + "/checkpoint")
        names = [name for name, _ in tf.train.list_variables(path)]
        self.assertTrue(any("iteration" in name.lower() or "optimizer" in name for name in names), names)
        noise = [released.step(), released.step()]
        for _ in range(2):
            checkpoint.read(path).assert_consumed()
            self.assertEqual(int(released.optimizer.iterations), 1)
            noise += [released.step(), released.step()]
        for index, one in enumerate(noise):
            for other in noise[:index]:
                self.assertLess(correlation(one, other), INDEPENDENT)

    def test_a_step_that_failed_after_its_draw_counts(self):
        released = Released()
        first = released.optimizer.noised([tf.zeros([SIZE])], None)[0].numpy()
        self.assertLess(correlation(first, released.step()), INDEPENDENT)

    def test_every_call_of_noised_is_a_release_but_one_that_says_it_is_none(self):
        optimizer = Released().optimizer
        zeros = [tf.zeros([SIZE])]
        shown = optimizer.noised(zeros, None, release=False)[0]
        noise = [optimizer.noised(zeros, None)[0].numpy() for _ in range(3)]
        np.testing.assert_array_equal(shown, noise[0])
        for index, one in enumerate(noise):
            for other in noise[:index]:
                self.assertLess(correlation(one, other), INDEPENDENT)
        self.assertEqual(int(optimizer.iterations), 0)

    def test_the_same_secret_replays_and_another_does_not(self):
        noise = []
        for secret in (b"0123456789abcdef", b"0123456789abcdef", None):
            released = Released()
            for _ in range(2):
                released.optimizer.rekey(secret)
                released.optimizer.iterations.assign(0)
                noise.append(np.concatenate([released.step(), released.step()]))
        for other in noise[1:4]:
            np.testing.assert_array_equal(noise[0], other)
        self.assertLess(correlation(noise[0], noise[4]), INDEPENDENT)
        self.assertLess(correlation(noise[4], noise[5]), INDEPENDENT)

    @parameterized.parameters("default", "mirrored")
    def test_the_first_generation_is_a_function_of_key_and_step(self, strategy):
        released = Released(strategy, seed=7)
        key = keys.derive(7, "noise")
        for step in range(3):
            expected = tf.random.stateless_normal([SIZE], [key[0], key[1] + step], alg="philox")
            np.testing.assert_allclose(released.step(), expected, atol=1e-5)

    def test_replicas_stay_bit_identical(self):
        released = Released("mirrored")
        for back in (0, 0, 2):
            released.step()
            released.optimizer.iterations.assign(back)
            released.step()
        first, second = released.weight.value.values
        np.testing.assert_array_equal(first.numpy(), second.numpy())


class NoiseKeyTest(absltest.TestCase):
    def test_generations(self):
        key = noise_key.NoiseKey(None)

        def found(step, release=True):
            return int(key.place(tf.constant(step, tf.int64), release=release)[0])

        self.assertEqual([found(step) for step in (0, 1, 5, 6)], [0, 0, 0, 0])
        self.assertEqual([found(6, False), found(7, False), found(6, False)], [1, 0, 1])
        self.assertEqual([found(6), found(6), found(7), found(3), found(4)], [1, 2, 2, 3, 3])
        key.assign(b"0123456789abcdef")
        self.assertEqual(found(3), 0)

    def test_a_copy_of_a_secret_is_another_secret(self):
        secret, known = noise_key.NoiseKey(None), noise_key.NoiseKey(3)
        self.assertFalse(np.array_equal(copy.deepcopy(secret).variable, secret.variable))
        np.testing.assert_array_equal(copy.deepcopy(known).variable, known.variable)
        self.assertNotIn(str(int(secret.variable[0])), repr(secret))

    def test_bytes_are_a_secret_and_are_not_shown(self):
        key, material = noise_key.NoiseKey(7), bytes(range(16))
        key.assign(material)
        self.assertIsNone(key.seed)
        self.assertEqual(tuple(key.variable.numpy()), keys.derive(material, "noise"))
        self.assertEqual(repr(key), "NoiseKey(...)")
        self.assertNotEqual(list(key.variable.numpy()), list(copy.deepcopy(key).variable.numpy()))
        for refused in (b"short", True, 1.5):
            with self.assertRaisesRegex(ValueError, "`seed` must") as caught:
                key.assign(refused)
            self.assertNotIn("short", str(caught.exception))

    def test_bad_seeds(self):
        for seed, message in (
            (b"short", "at least 16 bytes.*Received: 5 bytes"),
            (1.5, "Received: seed of type float"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                noise_key.NoiseKey(seed)


if __name__ == "__main__":
    absltest.main()
