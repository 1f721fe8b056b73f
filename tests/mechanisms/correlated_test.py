"""Correlated noise: one draw or several, its covariance over the steps on replicas and after a kill, and refusals."""

import functools
import json

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import linalg, stats

import noisy_sgd
from noisy_sgd import keys, privacy, sampling
from noisy_sgd.gradients import clipping
from noisy_sgd.mechanisms import correlated, gaussian, mechanism
from noisy_sgd.training import distribution
from tests.attacks import training

KEY = tf.constant(keys.derive(11, "noise"), tf.int64)
STEPS = 64
KINDS = {
    "lambda": correlated.CorrelatedNoise.lambda_cgd(0.9),
    "bands": correlated.CorrelatedNoise.banded_inverse_square_root(5),
}


def setUpModule():
    distribution.use_logical_devices(2)


def covariance(coefficients, num_steps=STEPS):
    """C^-1 C^-T."""
    column = np.zeros(num_steps)
    column[: len(coefficients)] = coefficients
    noising = linalg.toeplitz(column, np.zeros(num_steps))
    return noising @ noising.T


def disagreement(noise, expected):
    """How improbable it is that noise [steps, d] has this covariance over the steps: two-sided, in [0, 1].

    With the right covariance L L^T the whitened noise L^-1 noise is [steps, d] of independent standard normals. The
    sums of their squares and of the products of all pairs of steps are tested; the smallest of all is counted as that
    of as many tests.
    """
    white = linalg.solve_triangular(np.linalg.cholesky(expected), noise, lower=True)
    count, size = white.shape
    squares = stats.chi2(size).cdf(np.sum(white**2, axis=1))
    pairs = (white @ white.T)[np.triu_indices(count, 1)] / np.sqrt(size)
    tails = np.concatenate([np.minimum(squares, 1 - squares), stats.norm.sf(np.abs(pairs))])
    return 2 * tails.min() * len(tails)


@functools.cache
def without_noise():
    return training.Training(0.0).updates(*training.data(), STEPS)


class DrawTest(parameterized.TestCase):
    def draws(self, step, generation):
        return [part.numpy() for part in gaussian.flat_normal([(3,), (2, 2)], tf.float32, KEY, step, generation)]

    def test_one_coefficient_is_the_draw_bit_for_bit(self):
        for step in (0, 7):
            for one, other in zip(self.sums_of((1.0,), step, 0), self.draws(step, 2), strict=True):
                np.testing.assert_array_equal(one, other)

    @parameterized.parameters(True, False)
    def test_it_is_the_sum_of_the_last_draws(self, traced):
        coefficients = (1.0, -0.5, -0.125)
        sums = tf.function(self.sums_of, autograph=False) if traced else self.sums_of
        for step, first in ((0, 0), (1, 0), (2, 0), (9, 0), (9, 9), (9, 8)):
            found = sums(coefficients, tf.constant(step, tf.int64), tf.constant(first, tf.int64))
            lags = [lag for lag in range(3) if step - lag >= first]
            for place, part in enumerate(found):
                expected = sum(coefficients[lag] * self.draws(step - lag, 2)[place] for lag in lags)
                np.testing.assert_allclose(part, expected, atol=1e-6)

    def sums_of(self, coefficients, step, first):
        drawn = mechanism.Draw(step=step, generation=2, first=first)
        return gaussian.flat_sum([(3,), (2, 2)], tf.float32, KEY, coefficients, drawn)

    def test_nothing_grows_with_the_number_of_draws(self):
        def operations(bands):
            coefficients = correlated.CorrelatedNoise.banded_inverse_square_root(bands).coefficients
            traced = tf.function(
                lambda step: gaussian.flat_sum([(3,)], tf.float32, KEY, coefficients, mechanism.Draw(step=step))
            )
            return len(traced.get_concrete_function(tf.constant(3)).graph.get_operations())

        self.assertEqual(operations(2), operations(50))


class CovarianceTest(parameterized.TestCase):
    @parameterized.parameters(*KINDS)
    def test_of_the_mechanism(self, kind):
        coefficients = KINDS[kind].coefficients
        made = KINDS[kind].make(0.5, 3.0, 8, KEY)
        zeros = [tf.zeros([20_000])]
        noise = np.stack([made.add_noise(zeros, None, {}, mechanism.Draw(step))[0][0] for step in range(STEPS)]) / 1.5
        self.assertGreater(disagreement(noise, covariance(coefficients)), 1e-4)
        for wrong in (0.97 * noise, 1.03 * noise):
            self.assertLess(disagreement(wrong, covariance(coefficients)), 1e-8)
        self.assertLess(disagreement(noise, covariance((1, -0.84))), 1e-8)
        self.assertLess(disagreement(noise, np.eye(STEPS)), 1e-8)

    @parameterized.parameters(("lambda", "default", None), ("bands", "mirrored", 2), ("lambda", "mirrored", None))
    def test_of_a_training(self, kind, strategy, microbatch_size):
        noise = KINDS[kind]
        private = training.Training(1.0, strategy=strategy, noise=noise, microbatch_size=microbatch_size)
        # 883 weights: an error of 10 % in a step's scale is 4 standard errors, and there are 64 steps.
        found = (private.updates(*training.data(), STEPS) - without_noise()) / training.CLIP
        self.assertGreater(disagreement(found, covariance(noise.coefficients)), 1e-4)
        self.assertLess(disagreement(found / 2, covariance(noise.coefficients)), 1e-8)
        self.assertLess(disagreement(found, np.eye(STEPS)), 1e-8)

    @parameterized.parameters("default", "mirrored")
    def test_a_process_that_was_killed_goes_on_with_the_same_noise(self, strategy):
        x, y = training.data()
        whole = training.Training(1.0, strategy=strategy, noise=KINDS["bands"]).updates(x, y, 9)
        resumed = training.Training(1.0, strategy=strategy, noise=KINDS["bands"])
        resumed.model.optimizer.iterations.assign(4)
        np.testing.assert_array_equal(resumed.updates(x, y, 5), whole[4:])


class AttemptTest(absltest.TestCase):
    """What the optimizer's key makes of steps that do not follow each other."""

    SIZE = 6000

    def released(self, steps, seed=3, first_step=None):
        weight = keras.Variable(np.zeros(self.SIZE, np.float32))
        optimizer = noisy_sgd.DPSGD(1.0, 1.0, 1.0, 1, seed=seed, noise=KINDS["lambda"])
        optimizer.build([weight])
        if first_step is not None:
            optimizer.rekey(bytes(range(16)), first_step)
        total = clipping.ClippedSum(values=[tf.zeros([self.SIZE])], norms=tf.zeros([0]), l2_sensitivity=1.0)
        found = []
        for step in steps:
            optimizer.iterations.assign(step)
            before = weight.numpy()
            optimizer.apply(total, [weight])
            found.append(before - weight.numpy())
        return np.stack(found)

    def test_a_step_that_comes_again_begins_another_attempt(self):
        noise = self.released([0, 1, 2, 1, 2, 3])
        expected = linalg.block_diag(covariance((1, -0.9), 3), covariance((1, -0.9), 3))
        self.assertGreater(disagreement(noise, expected), 1e-4)
        self.assertLess(disagreement(noise, covariance((1, -0.9), 6)), 1e-8)

    def test_so_does_a_step_that_skips_others(self):
        expected = linalg.block_diag(covariance((1, -0.9), 2), covariance((1, -0.9), 2))
        self.assertGreater(disagreement(self.released([0, 1, 8, 9]), expected), 1e-4)

    def test_a_replay_from_a_later_step_needs_the_first_step_of_its_attempt(self):
        whole = self.released(range(5, 10), seed=None, first_step=5)
        self.assertGreater(disagreement(whole, covariance((1, -0.9), 5)), 1e-4)
        np.testing.assert_allclose(self.released(range(7, 10), None, 5), whole[2:], atol=1e-5)
        # By default there are draws before the first step: its noise is larger, and never smaller.
        self.assertAlmostEqual(np.std(self.released([7], None, 0)), np.hypot(1, 0.9), delta=0.06)
        self.assertAlmostEqual(np.std(self.released([7], None, 7)), 1.0, delta=0.05)


class NoisySGDTest(parameterized.TestCase):
    def steps(self, noise, count=3, **options):
        weight = keras.Variable(np.ones((2, 2, 3)))
        optimizer = noisy_sgd.NoisySGD(1.0, 0.5, seed=3, noise=noise, **options)
        optimizer.build([weight])
        zeros, found = [tf.zeros([2, 2, 3], tf.float64)], []
        for _ in range(count):
            found.append(optimizer.noised(zeros, [tf.ones([2, 2, 3], tf.float64)])[0].numpy())
            optimizer.iterations.assign_add(1)
        return found

    @parameterized.parameters("isotropic", "mirrored", "multiplicative")
    def test_it_is_the_sum_of_independent_noise(self, geometry):
        independent = self.steps(None, geometry=geometry)
        same = self.steps(noisy_sgd.CorrelatedNoise(coefficients=[1]), geometry=geometry)
        np.testing.assert_array_equal(same, independent)
        found = self.steps(noisy_sgd.CorrelatedNoise([1, -0.9]), geometry=geometry)
        np.testing.assert_allclose(found[0], independent[0], rtol=1e-12)
        for step in (1, 2):
            np.testing.assert_allclose(found[step], independent[step] - 0.9 * independent[step - 1], atol=1e-12)

    def test_config_round_trip(self):
        optimizer = noisy_sgd.NoisySGD(0.1, 0.5, seed=3, noise=noisy_sgd.CorrelatedNoise([1, -0.5]))
        rebuilt = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
        self.assertEqual(rebuilt.noise.coefficients, (1.0, -0.5))
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())

    def test_noise_scaled_to_a_clip_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`noise` must be a noisy_sgd.CorrelatedNoise"):
            noisy_sgd.NoisySGD(0.1, 0.5, seed=3, noise=gaussian.IndependentNoise())


class PrivateTest(parameterized.TestCase):
    def test_one_coefficient_trains_bit_for_bit_as_today(self):
        x, y = training.data()
        for strategy in ("default", "mirrored"):
            found = [
                training.Training(1.0, strategy=strategy, noise=noise, microbatch_size=2).updates(x, y, 3)
                for noise in (None, noisy_sgd.CorrelatedNoise([1]))
            ]
            np.testing.assert_array_equal(*found)

    def test_config_round_trip(self):
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 2.0, 4, noise=noisy_sgd.CorrelatedNoise([1, -0.5]))
        rebuilt = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
        self.assertEqual(rebuilt.noise.coefficients, (1.0, -0.5))
        self.assertAlmostEqual(float(rebuilt.noise_std), 2.0 * np.hypot(1, 0.5) / 4)

    def test_adam_subtracts_the_averaged_variance_of_its_steps(self):
        shares, size, beta = np.array([1, 0.81]), 4000, 0.9
        weight = keras.Variable(np.zeros(size, np.float32))
        options = {"seed": 2, "beta_1": 0.0, "beta_2": beta, "epsilon": 1e-6, "noise_correction": True}
        optimizer = noisy_sgd.DPAdam(1.0, 1.0, 8.0, 4, noise=noisy_sgd.CorrelatedNoise([1, -0.9]), **options)
        optimizer.build([weight])
        average = 0.0
        for step in range(1, 6):
            average += (1 - beta) * (4 * shares[:step].sum() - average)
            found = optimizer._noise_variance(tf.constant(float(step)), "float32")
            self.assertAlmostEqual(float(found), average / (1 - beta**step), places=5)
            total = clipping.ClippedSum(values=[tf.zeros([size])], norms=tf.zeros([0]), l2_sensitivity=1.0)
            optimizer.apply(total, [weight])
            unbiased = optimizer._velocities[0].numpy() / (1 - beta**step)
            # Squares of normals: the standard error of their mean is at most 7.24 (2 / 4000)^(1/2) = 0.16.
            self.assertAlmostEqual(float(np.mean(unbiased) - found), 0.0, delta=0.7)

    def test_adam_with_one_coefficient_subtracts_what_it_always_did(self):
        optimizer = noisy_sgd.DPAdam(1.0, 1.0, 8.0, 4, noise=noisy_sgd.CorrelatedNoise([1]), noise_correction=True)
        self.assertEqual(float(optimizer._noise_variance(tf.constant(3.0), "float32")), 4.0)

    def test_no_step_has_an_event(self):
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 4.0, 4, noise=noisy_sgd.CorrelatedNoise([1, -0.5]))
        with self.assertRaisesRegex(ValueError, "`event` of one step does not exist"):
            _ = optimizer.event
        event = optimizer.mechanism.event_of_run(sampling.Cyclic(12, 4).participation(3))
        self.assertIsInstance(event, dp_accounting.GaussianDpEvent)
        self.assertAlmostEqual(event.noise_multiplier, 4 / np.sqrt(1 + 0.5**2 + 0.25**2))

    def test_without_noise_nothing_is_private(self):
        made = noisy_sgd.CorrelatedNoise([1, -0.5]).make(float("inf"), 0.0, 4, KEY)
        self.assertIn("no noise is added", made.not_private)
        plan = privacy.Plan(event=made, sampling=sampling.Cyclic(12, 4), num_steps=3, delta=1e-5)
        self.assertEqual(plan.epsilon, float("inf"))
        zeros = [tf.zeros([3])]
        self.assertIs(made.add_noise(zeros, None, {}, mechanism.Draw(2))[0], zeros)

    def test_a_learned_clip_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`noise` must be None where `adaptive_clipping` learns the bound"):
            noisy_sgd.DPSGD(0.1, 1.0, 1.0, 4, noise=KINDS["lambda"], adaptive_clipping=noisy_sgd.AdaptiveClipping())

    def test_the_best_for_a_run(self):
        self.assertLen(noisy_sgd.CorrelatedNoise.best(100, 4, draws=2).coefficients, 2)


if __name__ == "__main__":
    absltest.main()
