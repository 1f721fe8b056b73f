"""Tests of the many-run bound: its limits against their definition, and the Gaussian mechanism, whose law is known."""

import doctest
import math

import numpy as np
from absl.testing import absltest, parameterized
from scipy import optimize, special, stats

from noisy_sgd.privacy.auditing import many_runs


def gaussian_delta(sigma, epsilon):
    """The exact delta of a Gaussian of this noise and sensitivity 1 (Balle and Wang 2018)."""
    near, far = stats.norm.cdf([1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma])
    return near - math.exp(epsilon) * far


class LimitsTest(parameterized.TestCase):
    @parameterized.parameters((0, 10), (3, 10), (10, 10), (1, 2000), (1999, 2000))
    def test_limits_are_where_the_tails_have_the_error(self, count, trials):
        upper, lower = many_runs.upper_limit(count, trials, 0.01), many_runs.lower_limit(count, trials, 0.01)
        if count < trials:
            self.assertAlmostEqual(stats.binom.cdf(count, trials, upper), 0.01, places=9)
        if count > 0:
            self.assertAlmostEqual(stats.binom.sf(count - 1, trials, lower), 0.01, places=9)
        self.assertBetween(count / trials, lower, upper)
        np.testing.assert_allclose(upper, stats.binomtest(count, trials).proportion_ci(0.98).high, atol=1e-9)

    def test_the_bound_by_hand(self):
        hit, alarm = many_runs.lower_limit(90, 100, 0.025), many_runs.upper_limit(20, 100, 0.025)
        for delta in (0.0, 0.01):
            expected = max(math.log((hit - delta) / alarm), math.log((1 - alarm - delta) / (1 - hit)))
            found = many_runs.epsilon_lower_bound(90, 100, 20, 100, delta, confidence=0.95)
            self.assertAlmostEqual(found, expected)
        self.assertEqual(many_runs.epsilon_lower_bound(50, 100, 50, 100, 0.0), 0.0)
        # Without an error there are 1 - error^(1/n) and its complement.
        alarm = 1 - 5e-5 ** (1 / 30_000)
        self.assertAlmostEqual(many_runs.largest_bound(30_000, 30_000, 0.0), math.log((1 - alarm) / alarm), places=6)
        with self.assertRaisesRegex(ValueError, "`true_positives` must be at most 5 runs"):
            many_runs.epsilon_lower_bound(6, 5, 0, 5, 0.0)

    def test_docstrings(self):
        self.assertEqual(doctest.testmod(many_runs).failed, 0)


class KnownMechanismsTest(parameterized.TestCase):
    def test_randomized_response_stays_below_with_the_confidence(self):
        rng, epsilon, trials = np.random.default_rng(0), 1.5, 300
        # 4000 audits at 80 %: 800 too high bounds are allowed, with a standard deviation of 25.
        right = special.expit(epsilon)
        hits, alarms = rng.binomial(trials, right, 4000), rng.binomial(trials, 1 - right, 4000)
        bounds = [
            many_runs.epsilon_lower_bound(int(hit), trials, int(alarm), trials, 0.0, confidence=0.8)
            for hit, alarm in zip(hits, alarms, strict=True)
        ]
        self.assertLess(np.mean(np.array(bounds) > epsilon), 0.2 + 4 * 25 / 4000)
        self.assertGreater(np.mean(bounds), 0.8 * epsilon)

    @parameterized.parameters(1.0, 3.0)
    def test_a_gaussian_is_bounded_by_its_epsilon_and_found_to_leak(self, epsilon):
        rng, delta, runs = np.random.default_rng(3), 1e-3, 40_000
        sigma = optimize.brentq(lambda sigma: gaussian_delta(sigma, epsilon) - delta, 0.1, 100)
        included = np.arange(runs) % 2 == 0
        found = many_runs.audit(included + sigma * rng.normal(size=runs), included, delta, num_calibration_runs=20_000)
        self.assertBetween(found["epsilon_lower_bound"], 0.3 * epsilon, epsilon)
        # Half of the noise leaks more than the claim.
        found = many_runs.audit(
            included + sigma / 2 * rng.normal(size=runs), included, delta, num_calibration_runs=20_000
        )
        self.assertGreater(found["epsilon_lower_bound"], epsilon)
        self.assertGreater(found["largest_bound"], found["epsilon_lower_bound"])

    def test_a_sure_attack_reaches_the_provable_maximum(self):
        included = np.arange(4000) % 2 == 0
        found = many_runs.audit(included.astype(float), included, 1e-6, num_calibration_runs=2000)
        self.assertEqual(found["epsilon_lower_bound"], found["largest_bound"])
        self.assertEqual((found["true_positives"], found["false_positives"]), (1000, 0))
        with self.assertRaisesRegex(ValueError, "`num_calibration_runs` must leave runs with and without"):
            many_runs.audit(included.astype(float), included, 1e-6, num_calibration_runs=1)


if __name__ == "__main__":
    absltest.main()
