"""Poisson batches follow their law, are independent of each other and of the noise, and are a function of (seed, step).

Every statistic is two-sided, of a fixed seed and a stated size, and is shown to reject a sampler of the wrong kind.
"""

import fractions
import math
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys, sampling
from noisy_sgd.mechanisms import gaussian

STEPS, EXAMPLES, BATCH = 2000, 500, 50
RATE = BATCH / EXAMPLES
SEED = 11


def inclusion(sampler, steps=STEPS):
    """Who is in which batch: bool [steps, examples]."""
    included = np.zeros((steps, sampler.num_examples), bool)
    for step in range(steps):
        included[step, sampler.indices(step)] = True
    return included


def two_sided(statistic, law):
    """The probability of a value as far out as this, on either side."""
    return 2 * min(law.cdf(statistic), law.sf(statistic))


def sizes_fit(included):
    """Chi-squared of the batch sizes against Binomial(N, q), in bins that expect at least 10."""
    law = stats.binom(EXAMPLES, RATE)
    edges = [-1]
    for size in range(EXAMPLES):
        if min(law.cdf(size) - law.cdf(edges[-1]), law.sf(size)) * len(included) >= 10:
            edges.append(size)
    expected = np.diff(np.append(law.cdf(edges), 1.0)) * len(included)
    observed = np.bincount(np.searchsorted(edges, included.sum(1)) - 1, minlength=len(expected))
    return two_sided(np.sum((observed - expected) ** 2 / expected), stats.chi2(len(expected) - 1))


def counts_fit(included):
    """Chi-squared of how often each example was in a batch, against Binomial(steps, q)."""
    steps = len(included)
    squares = (included.sum(0) - steps * RATE) ** 2 / (steps * RATE * (1 - RATE))
    return two_sided(squares.sum(), stats.chi2(EXAMPLES))


def pairs_independent(included):
    """Of the correlations of all pairs of rows: their sum and the sum of their squares, both nearly normal."""
    centred = included - included.mean(1, keepdims=True)
    rows = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    correlations = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    count, scale = len(correlations), included.shape[1] - 1
    signed = correlations.sum() * np.sqrt(scale / count)
    squared = (scale * np.sum(correlations**2) - count) / np.sqrt(2 * count)
    return min(two_sided(value, stats.norm()) for value in (signed, squared))


def shifts_independent(included):
    """The largest correlation of the table with itself, shifted by any number of steps and examples."""
    centred = (included - RATE) / np.sqrt(RATE * (1 - RATE))
    correlations = np.fft.ifft2(np.abs(np.fft.fft2(centred)) ** 2).real.ravel() / np.sqrt(centred.size)
    return min(1.0, centred.size * stats.norm.sf(np.abs(correlations[1:]).max()))


def unrelated(included, noise):
    """Rank correlations of inclusion with each coordinate of the noise, its size, and its Box-Muller pair's radius."""
    radius = np.repeat(np.hypot(noise[:, ::2], noise[:, 1::2]), 2, axis=1)
    features = [noise, np.abs(noise), radius, np.roll(radius, 1, axis=0)]
    every = [stats.spearmanr(included.ravel(), feature.ravel()).pvalue for feature in features]
    return min([*every, stats.spearmanr(included.sum(1), (noise**2).sum(1)).pvalue])


class OverlappingDraws(sampling.Poisson):
    """Counts steps in the counter's low word, so that every step uses the last one's draws again."""

    def indices(self, step):
        generator = np.random.Generator(np.random.Philox(key=[1, 2], counter=[step, 0, 0, 0]))
        return np.flatnonzero(generator.random(self.num_examples) < RATE)


class LawTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.poisson = inclusion(sampling.Poisson(EXAMPLES, BATCH, SEED))
        cls.shuffled = inclusion(sampling.Shuffled(EXAMPLES, BATCH, SEED))
        cls.other_rates = [inclusion(sampling.Poisson(EXAMPLES, batch, SEED)) for batch in (48, 52)]

    def test_batch_sizes_are_binomial(self):
        self.assertGreater(sizes_fit(self.poisson), 1e-4)
        for wrong in (self.shuffled, *self.other_rates):
            self.assertLess(sizes_fit(wrong), 1e-6)

    def test_every_example_is_as_likely(self):
        self.assertGreater(counts_fit(self.poisson), 1e-4)
        # Shuffled counts are all the same, which is as unlikely as too much scatter.
        self.assertLess(counts_fit(self.shuffled), 1e-6)
        favoured = self.poisson.copy()
        favoured[:, :20] |= self.other_rates[0][:, 20:40]
        self.assertLess(counts_fit(favoured), 1e-6)

    def test_pairs_of_examples_are_independent(self):
        self.assertGreater(pairs_independent(self.poisson.T), 1e-4)
        self.assertLess(pairs_independent(self.shuffled.T), 1e-6)

    def test_pairs_of_steps_are_independent(self):
        self.assertGreater(pairs_independent(self.poisson), 1e-4)
        self.assertLess(pairs_independent(self.shuffled), 1e-6)

    def test_no_step_uses_another_ones_draws(self):
        self.assertGreater(shifts_independent(self.poisson), 1e-4)
        overlapping = inclusion(OverlappingDraws(EXAMPLES, BATCH, SEED))
        self.assertLess(shifts_independent(overlapping), 1e-6)

    def test_seeds_are_independent(self):
        other = inclusion(sampling.Poisson(EXAMPLES, BATCH, SEED + 1), 400)
        self.assertGreater(shifts_independent(np.concatenate([self.poisson[:400], other])), 1e-4)
        self.assertLess(shifts_independent(np.concatenate([self.poisson[:400]] * 2)), 1e-6)


class NoiseTest(absltest.TestCase):
    def test_inclusion_tells_nothing_about_the_noise(self):
        # 200 steps of 500 coordinates each: a correlation of 0.0125 would be found.
        key = tf.constant(keys.derive(SEED, "noise"), tf.int64)
        noise = np.stack([gaussian.flat_normal([[EXAMPLES]], tf.float32, key, step)[0] for step in range(200)])
        included = inclusion(sampling.Poisson(EXAMPLES, BATCH, SEED), 200)
        self.assertGreater(unrelated(included, noise), 1e-4)

        def seed(step):
            return tf.stack([key[0], key[1] + step])

        uniform = np.stack([tf.random.stateless_uniform([EXAMPLES], seed(s), alg="philox") for s in range(200)])
        self.assertLess(unrelated(uniform < RATE, noise), 1e-100)

    def test_inclusion_has_a_key_of_its_own(self):
        with mock.patch.object(keys, "derive", wraps=keys.derive) as derive:
            sampling.Poisson(EXAMPLES, BATCH, SEED).indices(0)
        derive.assert_called_once_with(SEED, "inclusion")


class PoissonBatchesTest(parameterized.TestCase):
    def test_is_a_function_of_seed_and_step(self):
        sampler = sampling.Poisson(100, 30, seed=5)
        forward = [sampler.indices(step) for step in range(20)]
        for step in np.random.default_rng(0).permutation(20):
            fresh = sampling.Poisson(100, 30, seed=5)
            np.testing.assert_array_equal(fresh.indices(np.int64(step)), forward[step])
            self.assertEqual(fresh.size(int(step)), len(forward[step]))
        self.assertEqual(forward[0].dtype, np.int64)
        self.assertTrue(all(np.all(np.diff(indices) > 0) for indices in forward))

    def test_seeds_differ(self):
        draws = [tuple(sampling.Poisson(200, 100, seed).indices(3)) for seed in (0, 1, -1, 2**80, b"secret", b"other")]
        self.assertLen(set(draws), len(draws))

    def test_of_everything_takes_everything(self):
        np.testing.assert_array_equal(sampling.Poisson(9, 9, seed=0).indices(4), np.arange(9))

    def test_is_neither_cut_nor_filled(self):
        sizes = [sampling.Poisson(6, 3, seed=1).size(step) for step in range(500)]
        self.assertEqual((min(sizes), max(sizes)), (0, 6))

    def test_capacity_cuts_what_is_beyond_it_alone(self):
        whole, cut = sampling.Poisson(100, 20, seed=5), sampling.CappedPoisson(100, 20, seed=5, capacity=22)
        beyond = 0
        for step in range(300):
            indices, kept = whole.indices(step), cut.indices(step)
            beyond += len(indices) > 22
            self.assertEqual(cut.size(step), min(len(indices), 22))
            self.assertTrue(set(kept) <= set(indices))
            self.assertTrue(np.all(np.diff(kept) > 0))
        # P(Binomial(100, 0.2) > 22) is 0.261: 78 +- 4 standard deviations of 7.6.
        self.assertBetween(beyond, 48, 108)

    def test_capacity_favours_nobody(self):
        # Each of 40 examples is kept alike in 4,000 steps; keeping the first of a draw would favour low indices.
        cut = inclusion(sampling.CappedPoisson(40, 20, seed=2, capacity=15), 4000)
        mean = cut.mean()
        squares = (cut.mean(0) - mean) ** 2 * len(cut) / (mean * (1 - mean))
        self.assertGreater(two_sided(squares.sum(), stats.chi2(39)), 1e-4)

    @parameterized.parameters(0, -1, 11)
    def test_refuses_a_batch_that_cannot_be(self, batch_size):
        with self.assertRaisesRegex(
            ValueError,
            f"`batch_size` must be (a whole number|at most `num_examples`).*Received: batch_size={batch_size}",
        ):
            sampling.Poisson(10, batch_size, seed=0)

    def test_refuses_a_capacity_for_nobody_and_a_negative_step(self):
        with self.assertRaisesRegex(
            ValueError, "`capacity` must be a whole number of at least 1. Received: capacity=0"
        ):
            sampling.CappedPoisson(10, 5, seed=0, capacity=0)
        with self.assertRaisesRegex(ValueError, "`step` must not be negative. Received: step=-1"):
            sampling.Poisson(10, 5, seed=0).indices(-1)


def exact_tail(batch_size: int, num_examples: int, capacity: int) -> fractions.Fraction:
    """P(Binomial(N, B / N) > M) in whole numbers."""
    more = sum(
        math.comb(num_examples, k) * batch_size**k * (num_examples - batch_size) ** (num_examples - k)
        for k in range(capacity + 1, num_examples + 1)
    )
    return fractions.Fraction(more, num_examples**num_examples)


class TailTest(parameterized.TestCase):
    @parameterized.parameters(
        (4, 20, 6), (4, 20, 12), (4, 20, 19), (64, 300, 90), (64, 300, 150), (10, 200, 60), (3, 3, 2), (100, 1000, 150)
    )
    def test_exact_and_never_below(self, batch_size, num_examples, capacity):
        expected = exact_tail(batch_size, num_examples, capacity)
        found = sampling.poisson.overflow_probability(batch_size, num_examples, capacity)
        np.testing.assert_allclose(found, float(expected), rtol=2e-9)
        self.assertGreaterEqual(fractions.Fraction(found), expected)

    def test_only_a_capacity_for_all_never_overflows(self):
        self.assertEqual(sampling.poisson.overflow_probability(4, 20, 20), 0.0)
        self.assertEqual(sampling.poisson.overflow_probability(4, 20, 30), 0.0)
        self.assertGreater(sampling.poisson.overflow_probability(1, 100_000, 99_999), 0.0)

    @parameterized.parameters(0, -1, 2.5, True, None)
    def test_a_capacity_is_a_whole_number(self, capacity):
        with self.assertRaisesRegex(ValueError, f"`capacity` must be a whole number.*Received: capacity={capacity}"):
            sampling.poisson.overflow_probability(4, 20, capacity)


if __name__ == "__main__":
    absltest.main()
