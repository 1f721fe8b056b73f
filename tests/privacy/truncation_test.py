"""Batches cut off at a capacity: exact binomial tails, and by brute force what the cut-off gives away."""

import collections
import itertools
import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from dp_accounting import pld, rdp
from scipy import optimize, stats

from noisy_sgd import privacy
from noisy_sgd.privacy import truncation
from noisy_sgd.sampling import poisson

DIGITS = {"batch_size": 64, "num_examples": 1797, "num_steps": 280, "delta": 1e-5, "sampling": "poisson"}


def largest_delta(batch_size, num_examples, capacity, noise_multiplier, epsilon) -> float:
    """The smallest delta of one step at that epsilon, by enumerating who is in the batch; capacity None for no limit.

    The example in question has gradient 1, all others -1. It comes first in the data, so that where the batch is full
    it pushes another one out.
    """
    q = batch_size / num_examples
    values = np.linspace(-num_examples - 10 * noise_multiplier, 1 + 10 * noise_multiplier, 20001)
    densities = []
    for gradients in ([1] + [-1] * (num_examples - 1), [0] + [-1] * (num_examples - 1)):
        chances = collections.Counter()
        for drawn in itertools.product((False, True), repeat=num_examples):
            batch = [gradient for gradient, each in zip(gradients, drawn, strict=True) if each and gradient]
            chances[sum(batch[:capacity])] += math.prod(q if each else 1 - q for each in drawn)
        densities.append(sum(p * stats.norm.pdf(values, total, noise_multiplier) for total, p in chances.items()))
    spacing = values[1] - values[0]
    return max(
        float(np.maximum(one - math.exp(epsilon) * other, 0).sum() * spacing)
        for one, other in itertools.permutations(densities)
    )


class BruteForceTest(parameterized.TestCase):
    @parameterized.product(setting=((1, 8, 3), (2, 8, 4), (2, 8, 1), (4, 8, 6)), noise_multiplier=(0.3, 1.0))
    def test_delta_grows_by_no_more_than_is_said(self, setting, noise_multiplier):
        overflow = poisson.overflow_probability(*setting)
        for epsilon in (0.0, 0.5, 2.0):
            unlimited = largest_delta(*setting[:2], None, noise_multiplier, epsilon)
            cut_off = largest_delta(*setting, noise_multiplier, epsilon)
            self.assertLessEqual(cut_off, unlimited + truncation.delta_added(epsilon, overflow))

    def test_epsilon_of_a_small_capacity_holds(self):
        batch_size, num_examples, delta = 1, 8, 0.1
        for capacity in (3, 4, 8):
            epsilon = privacy.epsilon(0.5, batch_size, num_examples, 1, delta, sampling="poisson", capacity=capacity)
            self.assertLess(epsilon, 2.0)
            self.assertLessEqual(largest_delta(batch_size, num_examples, capacity, 0.5, epsilon), delta)

    def test_without_the_term_it_would_not_hold(self):
        unlimited = privacy.epsilon(0.3, 2, 8, 1, 0.1, sampling="poisson")
        self.assertLessEqual(largest_delta(2, 8, None, 0.3, unlimited), 0.1)
        self.assertGreater(largest_delta(2, 8, 1, 0.3, unlimited), 0.15)
        self.assertEqual(privacy.epsilon(0.3, 2, 8, 1, 0.1, sampling="poisson", capacity=1), math.inf)


class DeltaAddedTest(parameterized.TestCase):
    @parameterized.product(epsilon=(0.0, 0.5, 2.0, 6.0), overflow=(1e-9, 1e-4))
    def test_is_what_probability_that_moved_does_at_worst(self, epsilon, overflow):
        # On one outcome: probability tau of the data set's comes to it, and of the neighbor's goes elsewhere.
        here, there = 0.5, 0.5 * math.exp(-epsilon)
        moved = (here + overflow) - math.exp(epsilon) * (there - overflow)
        before = here - math.exp(epsilon) * there
        np.testing.assert_allclose(truncation.delta_added(epsilon, overflow), moved - before, rtol=1e-5)

    def test_by_hand(self):
        self.assertAlmostEqual(truncation.delta_added(0.0, 0.25), 0.5)
        self.assertAlmostEqual(truncation.delta_added(2.0, 1e-3), 8.389056e-3, places=9)
        self.assertEqual(truncation.delta_added(2.0, 0.0), 0.0)


def unlimited_epsilon(delta, neighbors, accountant):
    """Epsilon of the digits' run at noise 4 without a limit, by dp_accounting alone."""
    gaussian = dp_accounting.PoissonSampledDpEvent(64 / 1797, dp_accounting.GaussianDpEvent(4.0))
    event = dp_accounting.SelfComposedDpEvent(gaussian, DIGITS["num_steps"])
    account = pld.PLDAccountant() if accountant == "pld" else rdp.RdpAccountant()
    account.compose(event)
    if neighbors == "add_or_remove":
        return account.get_epsilon(delta)
    # A removal and an addition: (2 e, (1 + exp(e)) d).
    return 2 * optimize.brentq(lambda e: account.get_epsilon(delta / (1 + math.exp(e))) - e, 0.0, 5.0, xtol=1e-9)


class EpsilonTest(parameterized.TestCase):
    @parameterized.product(neighbors=("add_or_remove", "replace_one"), accountant=("pld", "rdp"))
    def test_the_total_delta_is_kept(self, neighbors, accountant):
        found = privacy.epsilon(4.0, **DIGITS, neighbors=neighbors, accountant=accountant, capacity=115)
        overflow = DIGITS["num_steps"] * stats.binom.sf(115, 1797, 64 / 1797)
        # At least a tenth of what is spent: else a wrong factor would not show.
        added = overflow + math.exp(found) * overflow
        self.assertBetween(added, 0.1 * DIGITS["delta"], DIGITS["delta"])
        needed = unlimited_epsilon(DIGITS["delta"] - added, neighbors, accountant)
        self.assertLessEqual(needed, found * (1 + 1e-5))
        np.testing.assert_allclose(needed, found, rtol=1e-4)
        wrong = unlimited_epsilon(DIGITS["delta"] - overflow, neighbors, accountant)
        self.assertGreater(found / wrong, 1 + 1e-3)

    def test_monotone_from_no_limit_to_no_guarantee(self):
        found = [
            privacy.epsilon(4.0, **DIGITS, accountant="rdp", capacity=capacity)
            for capacity in (None, 1797, 300, 130, 115, 64)
        ]
        self.assertEqual(found[0], found[1])
        self.assertEqual(found, sorted(found))
        self.assertLess(found[1], found[3])
        self.assertEqual(found[-1], math.inf)

    def test_no_steps_and_no_noise(self):
        self.assertEqual(privacy.epsilon(4.0, **{**DIGITS, "num_steps": 0}, capacity=64), 0.0)
        self.assertEqual(privacy.epsilon(0.0, **DIGITS, capacity=300), math.inf)
        self.assertEqual(truncation.delta_added(1e4, 1e-300), math.inf)

    def test_shuffled_batches_have_no_capacity(self):
        with self.assertRaisesRegex(ValueError, "`capacity` must be None unless .*Received: capacity=80"):
            privacy.epsilon(4.0, **{**DIGITS, "sampling": "shuffled"}, capacity=80)


if __name__ == "__main__":
    absltest.main()
