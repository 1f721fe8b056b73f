"""Means of lognormal numbers: against closed forms, and never narrower than what they stand for."""

import math

import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from noisy_sgd.sampling import lognormal_means

SETTINGS = ((0.3, 1), (1.0, 1), (0.5, 7), (1.0, 2), (1.0, 64), (3.0, 100), (20.0, 10_000))


def call(noise_multiplier, strike):
    """E (Y - strike)_+ of one lognormal number of mean 1 (Black and Scholes 1973)."""
    middle = 1 / (2 * noise_multiplier**2)
    gain, chance = ((sign * middle - np.log(strike)) * noise_multiplier for sign in (1, -1))
    return special.ndtr(gain) - strike * special.ndtr(chance)


def mean_of(spread, convex, count):
    """E h(S) of a function that is finite at 0 and grows linearly without bound, by at most its argument."""
    points = np.exp(spread.logarithms - math.log(count))
    return spread.masses @ convex(points) + spread.zero * convex(0.0) + spread.beyond / count


class SpreadTest(parameterized.TestCase):
    @parameterized.parameters(*SETTINGS)
    def test_it_keeps_probability_and_mean(self, noise_multiplier, count):
        spread = lognormal_means.spread_of_mean(noise_multiplier, count)
        self.assertAlmostEqual(spread.masses.sum() + spread.zero, 1.0, places=13)
        self.assertAlmostEqual(mean_of(spread, lambda y: y, count), 1.0, places=12)
        self.assertGreaterEqual(spread.masses.min(), 0.0)
        self.assertLess(max(spread.zero, spread.beyond / count), 1e-18)

    @parameterized.parameters(*SETTINGS)
    def test_its_variance_is_above_the_exact_one_by_little(self, noise_multiplier, count):
        exact = math.expm1(1 / noise_multiplier**2) / count
        share = []
        for resolution in (50.0, 10.0):
            spread = lognormal_means.spread_of_mean(noise_multiplier, count, resolution)
            share.append(mean_of(spread, lambda y: (y - 1) ** 2, count) / exact - 1)
            doublings = max(1, math.ceil(math.log2(count)))
            # Where log Y is wide, its deviation is the scale, and the variance lies far out in the tail.
            self.assertBetween(share[-1], 0.0, (doublings + 2 / noise_multiplier**2) / (4 * resolution**2))
        self.assertLess(share[0], share[1])

    @parameterized.parameters(0.3, 1.0, 5.0)
    def test_one_term_dominates_its_closed_form(self, noise_multiplier):
        spread = lognormal_means.spread_of_mean(noise_multiplier, 1)
        middle = 1 / (2 * noise_multiplier**2)
        for strike in np.exp(np.linspace(-middle - 5 / noise_multiplier, middle + 5 / noise_multiplier, 41)):
            exact = call(noise_multiplier, strike)
            found = mean_of(spread, lambda y, strike=strike: np.maximum(y - strike, 0), 1)
            self.assertGreaterEqual(found, exact * (1 - 1e-10))
            self.assertLessEqual(found, exact * 1.01)

    def test_it_stays_wider_on_another_grid_and_in_other_units(self):
        spread = lognormal_means.spread_of_mean(1.0, 10)
        coarse = lognormal_means.respread(spread, 0.05, math.log(10))
        self.assertEqual(coarse.spacing, 0.05)
        for strike in (0.3, 0.9, 1.0, 2.5, 8.0):
            fine_cost = mean_of(spread, lambda y, strike=strike: np.maximum(y - strike, 0), 10)
            coarse_cost = mean_of(coarse, lambda y, strike=strike: np.maximum(y - strike, 0), 1)
            self.assertBetween(coarse_cost / fine_cost, 1 - 1e-12, 1.05)

    def test_small_probabilities_are_accurate(self):
        # For t = 2 the sum exceeds a large number by as much as one term does whose partner is 1 on average.
        strike = math.exp(7.5)
        spread = lognormal_means.spread_of_mean(1.0, 2)
        found = 2 * mean_of(spread, lambda y: np.maximum(y - strike / 2, 0), 2)
        exact = 2 * call(1.0, strike - 1)
        self.assertBetween(found / exact, 1.0, 1.01)
        self.assertLess(found, 1e-9)


class MomentsTest(parameterized.TestCase):
    @parameterized.parameters((1.0, 1), (0.3, 2), (2.0, 3), (1.0, 1000), (50.0, 9999))
    def test_the_first_ones_are_those_of_independent_numbers(self, noise_multiplier, count):
        # The moments of Y are exp(k (k - 1) / (2 s^2)); those of the mean follow by counting equal indices.
        second, third = (math.exp(k * (k - 1) / (2 * noise_multiplier**2)) for k in (2, 3))
        expected = [
            1.0,
            1.0,
            (second + count - 1) / count,
            (third + 3 * (count - 1) * second + (count - 1) * (count - 2)) / count**2,
        ]
        found = lognormal_means.log_moments(noise_multiplier, count, 40)
        np.testing.assert_allclose(np.exp(found[:4]), expected, rtol=1e-12)
        # A convex function of the order; the tiny ones are rounded.
        self.assertGreater(np.diff(found, 2).min(), -1e-12)

    def test_of_one_term_they_are_the_gaussians(self):
        k = np.arange(101)
        np.testing.assert_allclose(lognormal_means.log_moments(0.7, 1, 100), k * (k - 1) / (2 * 0.49), rtol=1e-11)


if __name__ == "__main__":
    absltest.main()
