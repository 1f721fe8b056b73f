"""Tests of the one-run bound: the theorem's sum, its closed form, and randomized response, whose epsilon is exact."""

import doctest
import math

import numpy as np
from absl.testing import absltest, parameterized
from scipy import special, stats

from noisy_sgd.privacy.auditing import one_run


def published_p_value(m, r, v, epsilon, delta):
    """Theorem 5.2 term by term."""
    q = 1 / (1 + math.exp(-epsilon))
    masses = [stats.binom.pmf(k, r, q) for k in range(r + 1)]
    beta = sum(masses[v:])
    alpha = max([sum(masses[v - i : v]) / i for i in range(1, v + 1)], default=0.0)
    return min(1.0, beta + 2 * m * delta * alpha)


class FormulaTest(parameterized.TestCase):
    @parameterized.parameters(
        (10, 10, 8, 1.0, 0.0), (100, 40, 33, 0.5, 1e-3), (1000, 60, 60, 2.0, 1e-5), (5, 4, 0, 1.0, 0.1)
    )
    def test_the_p_value_is_the_theorems_sum(self, m, r, v, epsilon, delta):
        expected = published_p_value(m, r, v, epsilon, delta)
        self.assertAlmostEqual(one_run.p_value(m, r, v, epsilon, delta) / expected, 1.0, places=9)

    def test_all_right_without_delta(self):
        # The paper's Section 5: the bound of perfect guesses has a closed form.
        for guesses, confidence in ((100, 0.95), (1000, 0.95), (1000, 0.9999), (30_000, 0.9999)):
            right = (1 - confidence) ** (1 / guesses)
            expected = math.log(right / (1 - right))
            found = one_run.largest_bound(guesses, guesses, 0.0, confidence=confidence)
            self.assertAlmostEqual(found, expected, places=6)
        self.assertGreater(one_run.largest_bound(27_500, 27_500, 0.0), 8)

    @parameterized.parameters(1.0, 4.0, 8.0)
    def test_guesses_needed(self, epsilon):
        needed = one_run.guesses_needed(epsilon)
        self.assertGreater(one_run.largest_bound(needed, needed, 0.0), epsilon)
        self.assertLessEqual(one_run.largest_bound(needed - 1, needed - 1, 0.0), epsilon)

    def test_the_bound_is_where_the_p_value_crosses(self):
        bound = one_run.epsilon_lower_bound(1000, 200, 170, 1e-5, confidence=0.95)
        self.assertAlmostEqual(one_run.p_value(1000, 200, 170, bound, 1e-5), 0.05, places=6)
        self.assertLess(bound, math.log(170 / 30))
        self.assertGreater(bound, one_run.epsilon_lower_bound(1000, 200, 170, 1e-5))
        self.assertGreater(bound, one_run.epsilon_lower_bound(1000, 200, 170, 1e-3, confidence=0.95))
        self.assertEqual(one_run.epsilon_lower_bound(1000, 200, 100, 1e-5), 0.0)
        self.assertEqual(one_run.epsilon_lower_bound(1000, 200, 0, 0.5), 0.0)

    @parameterized.parameters(
        ((10, 20, 5, 0.0), "num_guesses"), ((20, 10, 11, 0.0), "correct"), ((20, 10, 5, 1.0), "delta")
    )
    def test_refuses(self, arguments, name):
        with self.assertRaisesRegex(ValueError, f"`{name}` must be"):
            one_run.epsilon_lower_bound(*arguments)

    def test_docstrings(self):
        self.assertEqual(doctest.testmod(one_run).failed, 0)


class GuessesTest(absltest.TestCase):
    def test_extremes_are_guessed(self):
        np.testing.assert_array_equal(one_run.guesses([0.1, 3.0, -2.0, 0.2, 1.0], 4), [-1, 1, -1, 0, 1])
        self.assertEqual(one_run.num_correct([-1, 1, -1, 0, 1], np.array([False, False, True, True, True])), 2)
        for scores, number in (([1.0, np.nan], 2), ([1.0, 2.0, 3.0], 3), ([1.0, 2.0], 4)):
            with self.assertRaises(ValueError):
                one_run.guesses(scores, number)

    def test_coins_are_fair_and_of_their_own_key(self):
        # 10,000 coins: the mean has a standard deviation of 0.005, like a correlation's 0.01.
        first, second = one_run.coins(10_000, b"0123456789abcdef"), one_run.coins(10_000, b"0123456789abcdeg")
        for drawn in (first, second, one_run.coins(10_000, 7)):
            self.assertAlmostEqual(drawn.mean(), 0.5, delta=0.025)
        self.assertAlmostEqual(np.corrcoef(first, second)[0, 1], 0.0, delta=0.05)
        np.testing.assert_array_equal(first, one_run.coins(10_000, b"0123456789abcdef"))


class RandomizedResponseTest(parameterized.TestCase):
    """Randomized response tells each coin with probability e^eps / (1 + e^eps): it is exactly eps-DP."""

    @parameterized.parameters((0.5, 0.0), (1.0, 1e-3), (3.0, 0.0))
    def test_the_bound_holds_with_its_confidence(self, epsilon, delta):
        rng = np.random.default_rng(1)
        # 4000 audits at 90 %: at most 400 too high bounds are expected, with a standard deviation of 19.
        m, audits, confidence = 200, 4000, 0.9
        correct = rng.binomial(m, special.expit(epsilon), audits)
        bounds = {
            v: one_run.epsilon_lower_bound(m, m, int(v), delta, confidence=confidence) for v in np.unique(correct)
        }
        too_high = sum(bounds[v] > epsilon for v in correct)
        self.assertLessEqual(too_high, 400 + 4 * 19)
        if not delta:
            # The bound is not idle either: Theorem 5.2 is tight for randomized response, up to whole numbers.
            self.assertGreater(too_high, 100)
            self.assertGreater(np.mean([bounds[v] for v in correct]), 0.6 * epsilon)

    def test_more_than_the_claim_is_found(self):
        rng = np.random.default_rng(2)
        for _ in range(20):
            correct = int(rng.binomial(1000, special.expit(3.0)))
            self.assertGreater(one_run.epsilon_lower_bound(1000, 1000, correct, 1e-6), 2.0)


if __name__ == "__main__":
    absltest.main()
