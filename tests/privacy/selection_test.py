"""The best of a random number of tries: the theorems by hand, dp_accounting's version, and a search that is run."""

import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from dp_accounting import dp_event, rdp

from noisy_sgd import privacy, sampling
from noisy_sgd.privacy import selection

ORDERS = np.array([1.5, 2.0, 3.0, 5.0, 10.0, 40.0, 200.0, 1000.0])


def plan(noise_multiplier=4.0, num_steps=280, scheme=None, **changes):
    settings = {"delta": 1e-5, "accountant": "rdp", **changes}
    return privacy.Plan(
        event=dp_accounting.GaussianDpEvent(noise_multiplier),
        sampling=scheme or sampling.Poisson(1797, 64),
        num_steps=num_steps,
        **settings,
    )


def mean_of(shape, gamma):
    """The mean of the truncated negative binomial distribution, from its probabilities (Definition 1)."""
    number = np.arange(1, 200_000, dtype=np.float64)
    if shape == 0:
        logs = number * math.log1p(-gamma) - np.log(number)
    else:
        # prod_{l < k} (l + eta) / (l + 1), whose sign does not matter after the normalization.
        factors = (np.arange(200_000 - 1) + shape) / (np.arange(200_000 - 1) + 1)
        logs = number * math.log1p(-gamma) + np.cumsum(np.log(np.abs(factors)))
    weights = np.exp(logs - logs.max())
    return float(np.sum(number * weights) / np.sum(weights))


class TheoremsTest(parameterized.TestCase):
    @parameterized.product(shape=(-0.9, -0.5, 0.0, 0.5, 1.0, 3.0), gamma=(0.5, 0.03))
    def test_the_halting_probability_has_the_mean(self, shape, gamma):
        found = selection.halting_probability(mean_of(shape, gamma), shape)
        self.assertBetween(found / gamma, 1 - 1e-6, 1.0)

    @parameterized.parameters(-0.5, 0.0, 1.0, 2.0)
    def test_theorem_2_for_gaussians(self, shape):
        # Corollary 4: for e(a) = rho a the best b is sqrt(log(1/gamma) / rho), where the added term is
        # (1 + eta) (2 sqrt(rho log(1/gamma)) - rho).
        rho, gamma = 0.01, 0.05
        mean = mean_of(shape, gamma)
        best = math.sqrt(-math.log(gamma) / rho)
        orders = np.append(ORDERS, best)
        found = selection.divergences_of_best(orders, rho * orders, mean, shape)
        added = (1 + shape) * (2 * math.sqrt(-rho * math.log(gamma)) - rho)
        np.testing.assert_allclose(found, rho * orders + added + math.log(mean) / (orders - 1), rtol=1e-6)

    @parameterized.product(shape=(0.0, 0.5, 1.0, 3.0, math.inf), mean=(1.0, 5.0, 1000.0))
    def test_dp_accounting_agrees(self, shape, mean):
        gaussian = dp_accounting.GaussianDpEvent(3.0)
        accountant = rdp.RdpAccountant([1.0, *ORDERS])
        accountant.compose(dp_event.RepeatAndSelectDpEvent(gaussian, mean, shape))
        found = selection.divergences_of_best(ORDERS, ORDERS / 18, mean, shape)
        # dp_accounting lets a lower order have the divergence of a higher one, which is valid for ours too.
        lowest = np.minimum.accumulate(found[::-1])[::-1] if shape < math.inf else found
        np.testing.assert_allclose(lowest, accountant.rdp[1:], rtol=1e-6)

    def test_one_try_for_certain_costs_one_try(self):
        for distribution in ("geometric", "logarithmic"):
            self.assertAlmostEqual(selection.best_of(plan(), 1, distribution), plan().epsilon, delta=1e-9)

    def test_theorem_2_bounds_a_search_of_randomized_response(self):
        # A try answers "good" with probability 1 - p or, on the neighbor, p. The best of K geometric tries is bad if
        # all are bad: E[x^K] = gamma x / (1 - (1 - gamma) x), in closed form.
        p, gamma = 0.4, 0.1
        loss = math.log((1 - p) / p)

        def bad(probability):
            return gamma * probability / (1 - (1 - gamma) * probability)

        orders = np.array([1.5, 2.0, 4.0, 16.0])
        laws = [np.array([bad(x), 1 - bad(x)]) for x in (p, 1 - p)]
        tries = np.array([[p, 1 - p], [1 - p, p]])

        def divergence(one, other, order):
            return math.log(np.sum(one**order * other ** (1 - order))) / (order - 1)

        one_try = np.array([divergence(*tries, order) for order in orders])
        bound = selection.divergences_of_best(orders, one_try, 1 / gamma, 1.0)
        for order, limit in zip(orders, bound, strict=True):
            for pair in (laws, laws[::-1]):
                self.assertLessEqual(divergence(*pair, order), limit)
        self.assertGreater(divergence(*laws[::-1], 16.0), loss)


class BestOfTest(parameterized.TestCase):
    @parameterized.parameters(
        ("geometric", None), ("logarithmic", None), ("negative_binomial", -0.5), ("poisson", None)
    )
    def test_it_costs_more_than_a_try_and_less_than_releasing_all(self, distribution, shape):
        together = privacy.composed([plan()] * 100, 1e-5).epsilon
        found = selection.best_of(plan(), 100, distribution, shape=shape)
        self.assertBetween(found, plan().epsilon, together)
        self.assertGreater(selection.best_of(plan(), 200, distribution, shape=shape), found)

    def test_the_distributions_in_order(self):
        found = [selection.best_of(plan(), 20, name) for name in ("logarithmic", "geometric")]
        self.assertLess(*found)
        self.assertAlmostEqual(
            selection.best_of(plan(), 20, "negative_binomial", shape=1.0), found[1], delta=1e-9 * found[1]
        )

    def test_neighbors_and_cut_off_batches(self):
        base = selection.best_of(plan(), 20, "geometric")
        self.assertGreater(selection.best_of(plan(neighbors="replace_one"), 20, "geometric"), 1.5 * base)
        capped = plan(scheme=sampling.CappedPoisson(1797, 64, capacity=120))
        self.assertGreater(selection.best_of(capped, 20, "geometric"), base)
        shuffled = sampling.Shuffled(1797, 64)
        twice = selection.best_of(plan(8.0, scheme=shuffled, neighbors="replace_one"), 20, "geometric")
        self.assertEqual(twice, selection.best_of(plan(4.0, scheme=shuffled), 20, "geometric"))

    def test_no_noise_and_no_steps(self):
        self.assertEqual(selection.best_of(plan(0.0), 20, "geometric"), math.inf)
        self.assertEqual(selection.best_of(plan(num_steps=0), 20, "geometric"), 0.0)

    @parameterized.parameters(
        (0.5, "geometric", None, "`mean_tries` must be a finite number at least 1"),
        (20, "uniform", None, "`distribution` must be one of geometric, logarithmic, poisson, negative_binomial"),
        (20, "negative_binomial", None, "`shape` must be given for 'negative_binomial'"),
        (20, "negative_binomial", -1, "`shape` must be a finite number above -1"),
        (20, "geometric", 2.0, "`shape` must be left out for 'geometric'"),
    )
    def test_refuses(self, tries, distribution, shape, message):
        with self.assertRaisesRegex(ValueError, message):
            selection.best_of(plan(), tries, distribution, shape=shape)


if __name__ == "__main__":
    absltest.main()
