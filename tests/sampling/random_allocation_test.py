"""Random allocation: who is in which step; what an epoch costs, against quadrature, Monte Carlo and other schemes."""

import dataclasses
import itertools
import math
from unittest import mock

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from scipy import integrate, special, stats

from noisy_sgd import keys, privacy, sampling
from noisy_sgd.mechanisms import adaptive_clipping
from noisy_sgd.privacy import accounting, renyi
from noisy_sgd.sampling import lognormal_means, random_allocation

GAUSSIAN = dp_accounting.GaussianDpEvent
# For tests that Monte Carlo estimates decide: the normal quantile of a two-sided probability of 1e-4.
QUANTILE = stats.norm.isf(5e-5)


def allocation(noise_multiplier, num_steps):
    return random_allocation.RandomAllocationDpEvent(GAUSSIAN(noise_multiplier), num_steps)


def epochs(scheme, count):
    """The step of each example in each epoch, [epochs, examples]."""
    steps = np.full((count, scheme.num_examples), -1)
    for step in range(count * scheme.steps_per_epoch):
        epoch, place = divmod(step, scheme.steps_per_epoch)
        indices = scheme.indices(step)
        np.testing.assert_array_equal(steps[epoch, indices], -1)
        steps[epoch, indices] = place
    return steps


class DrawsTest(parameterized.TestCase):
    @parameterized.parameters((10, 3), (12, 4), (7, 7), (5, 1))
    def test_every_example_is_in_one_step_of_every_epoch(self, num_examples, batch_size):
        scheme = sampling.RandomAllocation(num_examples, batch_size, seed=1)
        steps = epochs(scheme, 5)
        self.assertBetween(steps.min(), 0, scheme.steps_per_epoch - 1)
        indices = scheme.indices(0)
        self.assertEqual(indices.dtype, np.int64)
        self.assertTrue(np.all(np.diff(indices) > 0))
        self.assertEqual(scheme.size(0), len(indices))
        with self.assertRaises(ValueError):
            scheme.indices(0)[:] = 3

    def test_it_is_a_function_of_seed_and_step(self):
        scheme = sampling.RandomAllocation(100, 30, seed=5)
        forward = [scheme.indices(step) for step in range(20)]
        for step in np.random.default_rng(0).permutation(20):
            np.testing.assert_array_equal(scheme.indices(int(step)), forward[step])
            np.testing.assert_array_equal(sampling.RandomAllocation(100, 30, 5).indices(np.int64(step)), forward[step])

    def test_epochs_and_seeds_differ(self):
        drawn = [
            tuple(epochs(sampling.RandomAllocation(100, 50, seed), 3)[epoch])
            for seed in (0, 1, -1, 2**80, b"secret")
            for epoch in range(3)
        ]
        self.assertLen(set(drawn), 15)

    def test_steps_are_uniform_and_independent(self):
        # 2,000 epochs of 6 examples over 4 steps: chi-squared, two-sided at 1e-4.
        steps = epochs(sampling.RandomAllocation(6, 2, seed=3), 2000)
        steps = np.concatenate([steps, epochs(sampling.RandomAllocation(6, 2, seed=4), 2000)])
        count = sampling.RandomAllocation(6, 2).steps_per_epoch

        def fits(one, other, cells):
            table = np.bincount(one * count + other, minlength=cells)
            statistic = np.sum((table - len(one) / cells) ** 2) / (len(one) / cells)
            law = stats.chi2(cells - 1)
            return 2 * min(law.cdf(statistic), law.sf(statistic))

        for example in range(6):
            self.assertGreater(fits(np.zeros(4000, int), steps[:, example], count), 1e-4)
            # Of an epoch and the next, and of two examples: every pair of steps is as likely.
            self.assertGreater(fits(steps[:-1, example], steps[1:, example], count**2), 1e-4)
            self.assertGreater(fits(steps[:, example], steps[:, example - 1], count**2), 1e-4)
        # A shuffled epoch is not independent: two examples are together too seldom.
        shuffled = epochs(sampling.Shuffled(6, 2, seed=3), 2000)
        self.assertLess(fits(shuffled[:, 0], shuffled[:, 1], count**2), 1e-6)

    def test_sizes_vary_as_binomial_ones_do(self):
        # 500 epochs of 10 steps, 20 examples: P(empty) = 0.9^20 = 0.12, and the variance is 1.8.
        scheme = sampling.RandomAllocation(20, 2, seed=0)
        sizes = np.array([scheme.size(step) for step in range(5000)])
        self.assertGreater(stats.binomtest(int(np.sum(sizes == 0)), 5000, 0.9**20).pvalue, 1e-4)
        self.assertBetween(sizes.var() / 1.8, 0.85, 1.15)

    def test_it_has_the_key_of_inclusion(self):
        with mock.patch.object(keys, "derive", wraps=keys.derive) as derive:
            sampling.RandomAllocation(10, 5, 3).indices(0)
        derive.assert_called_once_with(3, "inclusion")

    def test_it_refuses_what_cannot_be(self):
        with self.assertRaisesRegex(ValueError, "`seed` must be given for a RandomAllocation to draw batches"):
            sampling.RandomAllocation(10, 3).indices(0)
        with self.assertRaisesRegex(ValueError, "`step` must not be negative. Received: step=-1"):
            sampling.RandomAllocation(10, 3, 0).indices(-1)


class ParticipationTest(parameterized.TestCase):
    def test_an_epoch_that_was_started_is_spent(self):
        scheme = sampling.RandomAllocation(10, 3)
        self.assertEqual((scheme.stride, scheme.steps_per_epoch), (4, 4))
        for num_steps, times in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
            one_of = scheme.participation(num_steps)
            self.assertEqual((one_of.times, one_of.num_steps, one_of.separation), (times, 4, 1))
            self.assertEqual(scheme.counted_steps(0, num_steps), 4 * times)
        # A second attempt in the middle of an epoch draws again: the epoch is spent twice.
        self.assertEqual(scheme.counted_steps(2, 4), 4)
        self.assertEqual(scheme.counted_steps(2, 5), 8)
        self.assertEqual(scheme.last_end(2, 4), 4)

    def test_known_batches_amplify_nothing(self):
        plan = privacy.Plan(
            event=GAUSSIAN(4.0), sampling=sampling.RandomAllocation(1797, 64), num_steps=280, delta=1e-5,
            accountant="rdp", batches_known=True,
        )  # fmt: skip
        self.assertFalse(plan.amplified)
        self.assertEqual(plan.epsilon, privacy.epsilon(4.0, 64, 1797, 280, 1e-5, sampling="shuffled", accountant="rdp"))
        self.assertIn("from a known seed and so without amplification", plan.text)
        secret = dataclasses.replace(plan, batches_known=False)
        self.assertLess(3 * secret.epsilon, plan.epsilon)
        said = privacy.statement.statement("dp_sgd", dataclasses.replace(secret, event=_mechanism()))
        self.assertTrue(said.amplification)
        self.assertIn("1797 examples in exactly one step, chosen at random, of each of 10 epochs", said.text)
        hidden = privacy.statement.statement("dp_sgd", dataclasses.replace(plan, event=_mechanism()))
        self.assertIn("which needs amplification by random allocation with secret batches", hidden.text)

    def test_attempts_add_up(self):
        plan = privacy.Plan(
            event=GAUSSIAN(4.0), sampling=sampling.RandomAllocation(100, 10), num_steps=20, delta=1e-5, accountant="rdp"
        )
        ledger = privacy.ledger.Ledger(((0, 15), (12, 30)))
        self.assertEqual(privacy.ledger.spent(ledger, plan), plan.with_steps(40).epsilon)


def _mechanism():
    return adaptive_clipping.AdaptiveClipping(count_stddev=4.0).make(1.0, 4.0, 64, None)


def exact_of_two(noise_multiplier, epsilon):
    """delta of removing and of adding for one of two steps: both terms of S, one of them integrated by hand."""
    middle, deviation = -1 / (2 * noise_multiplier**2), 1 / noise_multiplier

    def removing(z):
        # The first term is the larger one; both orders are as likely.
        other = math.exp(middle + deviation * z)
        least = math.log(max(other, 2 * math.exp(epsilon) - other))
        gain, chance = ((sign * -middle - least) * noise_multiplier for sign in (1, -1))
        return stats.norm.pdf(z) * (special.ndtr(gain) + (other - 2 * math.exp(epsilon)) * special.ndtr(chance))

    def adding(z):
        strike = 2 * math.exp(-epsilon) - math.exp(middle + deviation * z)
        if strike <= 0:
            return 0.0
        gain, chance = ((sign * -middle - math.log(strike)) * noise_multiplier for sign in (1, -1))
        put = strike * special.ndtr(-chance) - special.ndtr(-gain)
        return stats.norm.pdf(z) * math.exp(epsilon) / 2 * put

    kinks = sorted((math.log(y) - middle) / deviation for y in (math.exp(epsilon), 2 * math.exp(-epsilon)))
    deltas = []
    for integrand in (removing, adding):
        ends = np.unique(np.clip([-12, *kinks, 0, 3, 6, 9, 12 + 1 / noise_multiplier], -12, 12 + 1 / noise_multiplier))
        deltas.append(sum(integrate.quad(integrand, *e, epsabs=0, epsrel=1e-9)[0] for e in itertools.pairwise(ends)))
    return deltas


def deltas_of(noise_multiplier, num_steps, epsilon):
    """delta of removing and of adding by the spread that the accountant uses."""
    spread = random_allocation._spread(noise_multiplier, num_steps, random_allocation._POINTS_OF_PLD)
    ratio = np.exp(spread.logarithms - math.log(num_steps))
    removing = spread.masses @ np.maximum(ratio - math.exp(epsilon), 0) + spread.beyond / num_steps
    return removing, spread.masses @ np.maximum(1 - math.exp(epsilon) * ratio, 0) + spread.zero


def larger_term_estimates(noise_multiplier, num_steps, epsilon, size, seed):
    """Independent estimates of delta of removing; the largest term is integrated by hand (Asmussen and Kroese 2006)."""
    middle = 1 / (2 * noise_multiplier**2)
    normals = np.random.default_rng(seed).normal(size=(size, num_steps - 1))
    others = np.exp(normals / noise_multiplier - middle)
    rest = others.sum(1) - num_steps * math.exp(epsilon)
    least = np.log(np.maximum(others.max(1), -rest))
    gain, chance = ((sign * middle - least) * noise_multiplier for sign in (1, -1))
    return special.ndtr(gain) + rest * special.ndtr(chance)


class CostTest(parameterized.TestCase):
    @parameterized.parameters((1.0, 1.0), (1.0, 3.0), (0.5, 4.0), (3.0, 0.3))
    def test_two_steps_dominate_the_exact_deltas(self, noise_multiplier, epsilon):
        share = np.divide(deltas_of(noise_multiplier, 2, epsilon), exact_of_two(noise_multiplier, epsilon))
        self.assertBetween(share.min(), 1 - 1e-7, 1.01)
        self.assertLess(share.max(), 1.01)

    @parameterized.parameters((1.0, 2, 3.0), (0.5, 8, 6.0), (0.5, 20, 5.0), (0.6, 8, 5.0))
    def test_never_below_the_upper_limit_of_a_monte_carlo_delta(self, noise_multiplier, num_steps, epsilon):
        # 400,000 estimates, whose limit is within 0.1 % of their mean.
        estimates = larger_term_estimates(noise_multiplier, num_steps, epsilon, 400_000, seed=1)
        mean, error = estimates.mean(), QUANTILE * estimates.std() / math.sqrt(len(estimates))
        self.assertLess(error, 2e-3 * mean)
        delta = mean + error
        found = privacy.epsilon(noise_multiplier, 1, num_steps, num_steps, delta, sampling="random_allocation")
        self.assertBetween(found, epsilon, epsilon * 1.002)
        # And the check could fail: one step more costs less than that.
        less = privacy.epsilon(noise_multiplier, 1, num_steps + 1, num_steps + 1, delta, sampling="random_allocation")
        self.assertLess(less, epsilon)

    @parameterized.parameters((1.0, 4, 2, 2.0), (2.0, 10, 3, 0.5))
    def test_several_epochs_agree_with_monte_carlo(self, noise_multiplier, num_steps, count, epsilon):
        # Privacy losses of 300,000 runs, drawn with the example: delta is the mean of (1 - exp(epsilon - loss))_+.
        size = 300_000
        draws = noise_multiplier * np.random.default_rng(2).normal(size=(size, count, num_steps))
        draws[:, :, 0] += 1
        losses = special.logsumexp((draws - 0.5) / noise_multiplier**2, axis=2).sum(1) - count * math.log(num_steps)
        estimates = -np.expm1(np.minimum(epsilon - losses, 0))
        mean, error = estimates.mean(), QUANTILE * estimates.std() / math.sqrt(size)
        self.assertLess(error, 0.12 * mean)
        event = dp_accounting.SelfComposedDpEvent(allocation(noise_multiplier, num_steps), count)
        self.assertGreaterEqual(accounting.epsilon_of_event(event, mean - error), epsilon)
        self.assertLessEqual(accounting.epsilon_of_event(event, mean + error), epsilon * 1.002)

    @parameterized.parameters((1.0, 2), (2.0, 3), (0.6, 5))
    def test_adding_agrees_with_importance_sampling(self, noise_multiplier, num_steps):
        # 400,000 draws without the example, all coordinates one deviation lower, weighted back.
        draws = np.random.default_rng(3).normal(size=(400_000, num_steps)) - 1
        weights = np.exp(draws.sum(1) + num_steps / 2)
        ratio = np.exp(draws / noise_multiplier - 1 / (2 * noise_multiplier**2)).mean(1)
        for epsilon in (0.2, 1.0):
            estimates = weights * np.maximum(1 - math.exp(epsilon) * ratio, 0)
            mean, error = estimates.mean(), QUANTILE * estimates.std() / math.sqrt(len(estimates))
            self.assertLess(error, 0.05 * mean)
            self.assertBetween(deltas_of(noise_multiplier, num_steps, epsilon)[1], mean - error, mean + error)

    @parameterized.parameters((1.0, 2), (0.6, 2), (4.0, 2))
    def test_renyi_divergences_dominate_the_definition(self, noise_multiplier, num_steps):
        normals, weights = np.polynomial.hermite_e.hermegauss(180)
        weights = weights / weights.sum()
        terms = np.exp(normals / noise_multiplier - 1 / (2 * noise_multiplier**2))
        ratio, probability = (terms[:, None] + terms) / 2, weights[:, None] * weights
        orders = np.array([2.0, 3.0, 5.0])
        found = allocation(noise_multiplier, num_steps).divergences(orders)
        removing, adding = (
            np.array([math.log(np.sum(probability * ratio ** power(a))) / (a - 1) for a in orders])
            for power in (lambda a: a, lambda a: 1 - a)
        )
        np.testing.assert_allclose(
            random_allocation._removing(noise_multiplier, num_steps, orders), removing, rtol=1e-9
        )
        bound = random_allocation._adding(noise_multiplier, num_steps, orders)
        self.assertTrue(np.all(bound >= adding * (1 - 1e-9)))
        np.testing.assert_allclose(bound, adding, rtol=0.02)
        np.testing.assert_allclose(found, np.maximum(removing, bound), rtol=1e-9)

    def test_fractional_orders_are_on_the_chord(self):
        orders = np.array([2.0, 2.5, 3.0])
        moments = lognormal_means.log_moments(1.0, 10, 3)
        found = allocation(1.0, 10).divergences(orders)
        self.assertAlmostEqual(1.5 * found[1], (moments[2] + moments[3]) / 2, places=12)

    @parameterized.parameters((1.0, 1000), (3.0, 10_000), (0.5, 20), (4.0, 100), (100.0, 7))
    def test_divergences_rise_with_the_order_and_stay_below_the_gaussians(self, noise_multiplier, num_steps):
        orders, found = renyi.divergences(allocation(noise_multiplier, num_steps))
        self.assertGreaterEqual(np.diff(found).min(), -1e-12)
        self.assertTrue(np.all(found <= orders / (2 * noise_multiplier**2) * (1 + 1e-12)))

    def test_one_step_per_epoch_is_a_gaussian(self):
        for accountant in accounting.ACCOUNTANTS:
            self.assertEqual(
                privacy.epsilon(3.0, 10, 10, 4, 1e-5, sampling="random_allocation", accountant=accountant),
                privacy.epsilon(3.0, 10, 10, 4, 1e-5, sampling="shuffled", accountant=accountant),
            )


class OrderTest(parameterized.TestCase):
    @parameterized.product(
        accountant=accounting.ACCOUNTANTS,
        neighbors=accounting.NEIGHBORS,
        noise_multiplier=(0.04, 0.3, 1.0, 5.0),
        num_steps=(2, 17),
    )
    def test_never_above_shuffled(self, accountant, neighbors, noise_multiplier, num_steps):
        run = {"num_steps": 3 * num_steps, "delta": 1e-5, "accountant": accountant, "neighbors": neighbors}
        allocated, shuffled = (
            privacy.epsilon(noise_multiplier, 1, num_steps, sampling=sampling, **run)
            for sampling in ("random_allocation", "shuffled")
        )
        self.assertLessEqual(allocated, shuffled * (1 + 1e-12))

    @parameterized.parameters(*accounting.ACCOUNTANTS)
    def test_monotone(self, accountant):
        def spent(noise_multiplier=1.0, count=30, epochs=3, delta=1e-5):
            return privacy.epsilon(
                noise_multiplier, 1, count, count * epochs, delta, sampling="random_allocation", accountant=accountant
            )

        noise = [spent(noise_multiplier=z) for z in (0.3, 0.31, 0.6, 1.0, 1.02, 10.0, 100.0)]
        counts = [spent(count=count) for count in (1, 2, 3, 5, 16, 17, 33, 64, 500)]
        numbers = [spent(epochs=count) for count in (1, 2, 3, 10, 100)][::-1]
        deltas = [spent(delta=delta) for delta in (1e-9, 1e-6, 1e-5, 1e-3)]
        for decreasing in (noise, counts, numbers, deltas):
            self.assertLess(np.diff(decreasing).max(), 0.0)

    def test_parts_of_an_epoch_cost_the_whole(self):
        found = [privacy.epsilon(1.0, 1, 10, n, 1e-5, sampling="random_allocation") for n in (11, 15, 20, 21)]
        self.assertEqual(found[0], found[2])
        self.assertEqual(found[1], found[2])
        self.assertLess(found[2], found[3])

    def test_it_costs_less_than_poisson_where_an_example_takes_part_as_often(self):
        for noise_multiplier, count, epochs_taken in ((2.0, 10, 1), (2.0, 50, 20)):
            allocated, poisson = (
                privacy.epsilon(noise_multiplier, 1, count, count * epochs_taken, 1e-5, sampling=sampling)
                for sampling in ("random_allocation", "poisson")
            )
            self.assertBetween(allocated / poisson, 0.7, 1.0)


class EventTest(parameterized.TestCase):
    def test_a_learned_clip_costs_the_joint_gaussian(self):
        plan = privacy.Plan(event=_mechanism(), sampling=sampling.RandomAllocation(1797, 64), num_steps=280, delta=1e-5)
        joint = accounting.joint_noise_multiplier(4.0, 8.0)
        self.assertEqual(plan.epsilon, privacy.epsilon(joint, 64, 1797, 280, 1e-5, sampling="random_allocation"))

    @parameterized.parameters(*accounting.ACCOUNTANTS)
    def test_it_composes_with_other_events(self, accountant):
        poisson = dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(0.1, GAUSSIAN(2.0)), 10)
        parts = [allocation(2.0, 10), poisson, dp_accounting.SelfComposedDpEvent(GAUSSIAN(8.0), 2)]
        alone = [accounting.epsilon_of_event(part, 1e-5, accountant) for part in parts]
        together = accounting.epsilon_of_event(dp_accounting.ComposedDpEvent(parts), 1e-5, accountant)
        self.assertBetween(together, max(alone), sum(alone))
        # The Gaussian in the place of the allocation costs more.
        revealed = dp_accounting.ComposedDpEvent([GAUSSIAN(2.0), *parts[1:]])
        self.assertLess(together, accounting.epsilon_of_event(revealed, 1e-5, accountant))

    @parameterized.parameters(*accounting.ACCOUNTANTS)
    def test_replacing_is_a_removal_and_an_addition(self, accountant):
        run = {"sampling": "random_allocation", "accountant": accountant}
        replaced = privacy.epsilon(1.5, 64, 1797, 280, 1e-5, neighbors="replace_one", **run)
        single = replaced / 2
        needed = privacy.epsilon(1.5, 64, 1797, 280, 1e-5 / (1 + math.exp(single)), **run)
        np.testing.assert_allclose(needed, single, rtol=1e-4)
        self.assertLessEqual(needed, single)

    def test_what_is_not_one_gaussian_is_refused(self):
        twice = random_allocation.RandomAllocationDpEvent(dp_accounting.SelfComposedDpEvent(GAUSSIAN(2.0), 2), 10)
        with self.assertRaisesRegex(ValueError, "`event` of a step must be one Gaussian under random allocation"):
            accounting.epsilon_of_event(twice, 1e-5)
        with self.assertRaisesRegex(ValueError, "`event` must be made of Gaussians"):
            accounting.epsilon_of_event(
                random_allocation.RandomAllocationDpEvent(dp_accounting.LaplaceDpEvent(1.0), 10), 1e-5
            )

    def test_without_noise_nothing_is_private(self):
        for accountant in accounting.ACCOUNTANTS:
            found = privacy.epsilon(0.0, 1, 10, 10, 1e-5, sampling="random_allocation", accountant=accountant)
            self.assertEqual(found, math.inf)

    @parameterized.parameters(1e3, 1e6, 1e12)
    def test_enormous_noise_survives_rounding(self, noise_multiplier):
        for accountant in accounting.ACCOUNTANTS:
            found = privacy.epsilon(
                noise_multiplier, 1, 1797, 1797, 1e-5, sampling="random_allocation", accountant=accountant
            )
            self.assertBetween(found, 0.0, 0.01)


if __name__ == "__main__":
    absltest.main()
