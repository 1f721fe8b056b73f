import itertools
import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from dp_accounting import rdp
from scipy import integrate, stats

from noisy_sgd.privacy import renyi

INTEGERS = np.array([2.0, 3.0, 8.0, 32.0])
GAUSSIAN = dp_accounting.GaussianDpEvent


def sampled(probability, noise_multiplier):
    return dp_accounting.PoissonSampledDpEvent(probability, GAUSSIAN(noise_multiplier))


def by_dp_accounting(event, orders):
    return np.asarray(rdp.RdpAccountant(orders).compose(event).rdp)


def by_quadrature(probability, noise_multiplier, order):
    """The definition's integral, by adaptive quadrature between the peaks of its parts."""

    def integrand(z):
        loss = math.exp((2 * z - 1) / (2 * noise_multiplier**2))
        return stats.norm.pdf(z, 0, noise_multiplier) * (1 - probability + probability * loss) ** order

    ends = sorted({sign * 12 * noise_multiplier + peak for sign in (-1, 0, 1) for peak in (0.0, 0.5, order)})
    parts = [integrate.quad(integrand, *ends, epsabs=0, epsrel=1e-13)[0] for ends in itertools.pairwise(ends)]
    return math.log(math.fsum(parts)) / (order - 1)


class SampledGaussianTest(parameterized.TestCase):
    @parameterized.product(probability=(1e-4, 0.04, 0.5, 0.99), noise_multiplier=(0.05, 0.3, 1.0, 5.0, 100.0))
    def test_integers_are_dp_accountings(self, probability, noise_multiplier):
        expected = by_dp_accounting(sampled(probability, noise_multiplier), INTEGERS)
        found = [renyi.sampled_gaussian(probability, noise_multiplier, order) for order in INTEGERS]
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=2e-14)

    @parameterized.parameters(
        (64 / 1437, 0.6, 1.1), (64 / 1437, 0.6, 2.1), (512 / 1437, 6.0, 7.1), (8 / 60_000, 0.3, 1.5), (0.5, 1.0, 10.9)
    )
    def test_fractions_are_the_definitions_integral(self, probability, noise_multiplier, order):
        found = renyi.sampled_gaussian(probability, noise_multiplier, order)
        np.testing.assert_allclose(found, by_quadrature(probability, noise_multiplier, order), rtol=1e-11, atol=2e-14)


class DivergencesTest(parameterized.TestCase):
    def test_the_orders_are_dp_accountings(self):
        orders, _ = renyi.divergences(GAUSSIAN(1.0))
        np.testing.assert_array_equal(orders, rdp.RdpAccountant().orders)

    @parameterized.parameters(
        GAUSSIAN(1.3),
        dp_accounting.NoOpDpEvent(),
        dp_accounting.NonPrivateDpEvent(),
        sampled(0.1, 1.3),
        sampled(1.0, 1.3),
        sampled(0.0, 1.3),
        sampled(0.1, 0.01),
        sampled(0.1, 0.0),
        dp_accounting.SelfComposedDpEvent(sampled(0.02, 0.8), 40),
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.ComposedDpEvent([GAUSSIAN(2.0), GAUSSIAN(3.0)])),
        dp_accounting.ComposedDpEvent(
            [GAUSSIAN(4.0), dp_accounting.SelfComposedDpEvent(sampled(0.2, 2.0), 3), sampled(0.3, 5.0)]
        ),
    )
    def test_events_compose_as_in_dp_accounting(self, event):
        orders, found = renyi.divergences(event)
        for divergences in (found, renyi._of_event(event, orders)):
            whole = orders == np.round(orders)
            expected = by_dp_accounting(event, orders[whole])
            np.testing.assert_allclose(divergences[whole], expected, rtol=1e-12, atol=1e-13)
            # Divergences rise with the order, whatever computed them.
            finite = divergences[np.isfinite(divergences)]
            self.assertGreaterEqual(np.diff(finite).min(initial=0), -1e-9)

    def test_fractions_agree_with_a_version_that_keeps_signs(self):
        # Of dp_accounting 0.4.3: 200 steps at q = 64 / 1437 with noise multiplier 0.6, and 100 at 512 / 1437 with 6.
        recorded = {
            (64 / 1437, 0.6, 200): {1.7: 4.005472452237721, 2.1: 6.769115626989219, 2.4: 10.734356900469018},
            (512 / 1437, 6.0, 100): {6.8: 1.2525087076721533, 7.1: 1.3104053272406269, 7.5: 1.3879677649859554},
        }
        for (probability, noise_multiplier, steps), expected in recorded.items():
            event = dp_accounting.SelfComposedDpEvent(sampled(probability, noise_multiplier), steps)
            orders, found = renyi.divergences(event)
            at = [int(np.argmin(np.abs(orders - order))) for order in expected]
            np.testing.assert_allclose(found[at], list(expected.values()), rtol=1e-9)
            np.testing.assert_allclose(renyi._of_event(event, orders)[at], list(expected.values()), rtol=1e-9)

    def test_where_nothing_is_integrated_the_bound_is_above(self):
        orders = np.array([1.5, 2.0, 2.5, 3.0])
        found = renyi._of_event(sampled(0.1, 0.04), orders)
        exact = [renyi.sampled_gaussian(0.1, 0.04, order) for order in orders]
        np.testing.assert_allclose(found[1::2], exact[1::2], rtol=1e-12)
        self.assertTrue(np.all(found[::2] >= exact[::2]))
        self.assertTrue(np.all(found[::2] <= found[1::2]))


if __name__ == "__main__":
    absltest.main()
