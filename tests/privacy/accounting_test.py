"""Epsilon of a run: closed forms, the papers' numbers, order relations, and refusals."""

import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from scipy import optimize, stats

from noisy_sgd import privacy
from noisy_sgd import sampling as sampling_schemes
from noisy_sgd.privacy import accounting, plan

DIGITS = {"batch_size": 64, "num_examples": 1797, "num_steps": 280, "delta": 1e-5, "sampling": "poisson"}


def gaussian_delta(noise_multiplier: float, epsilon: float) -> float:
    """The exact delta of one Gaussian of sensitivity 1 (Balle and Wang 2018, theorem 5)."""
    half, spread = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
    return stats.norm.cdf(half - spread) - math.exp(epsilon) * stats.norm.cdf(-half - spread)


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Its inverse."""
    return optimize.brentq(lambda epsilon: gaussian_delta(noise_multiplier, epsilon) - delta, 0, 100, xtol=1e-10)


def event_of_run(event, num_steps=280, *, sampling) -> dp_accounting.DpEvent:
    """The event of a run on the digits."""
    scheme = sampling_schemes.named(sampling)(1797, 64)
    return plan.Plan(event=event, sampling=scheme, num_steps=num_steps, delta=1e-5).event_of_run


class ClosedFormTest(parameterized.TestCase):
    @parameterized.parameters((0.7, 1e-5), (1.0, 1e-3), (3.0, 1e-6), (20.0, 1e-5))
    def test_one_step_without_sampling_is_the_analytic_gaussian(self, noise_multiplier, delta):
        expected = gaussian_epsilon(noise_multiplier, delta)
        for sampling in tuple(sampling_schemes.SCHEMES):
            found = privacy.epsilon(noise_multiplier, 10, 10, 1, delta, sampling=sampling)
            np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=sampling)
            self.assertGreaterEqual(found, expected * (1 - 1e-9))

    @parameterized.parameters((1, 1), (29, 1), (30, 2), (58, 2), (59, 3), (280, 10))
    def test_shuffled_composes_once_per_epoch_started(self, num_steps, epochs):
        found = privacy.epsilon(4.0, 64, 1797, num_steps, 1e-5, sampling="shuffled")
        np.testing.assert_allclose(found, gaussian_epsilon(4.0 / math.sqrt(epochs), 1e-5), rtol=1e-3)

    def test_replacing_doubles_the_sensitivity_of_shuffled_runs(self):
        settings = {**DIGITS, "sampling": "shuffled"}
        for accountant in accounting.ACCOUNTANTS:
            replaced = privacy.epsilon(4.0, **settings, accountant=accountant, neighbors="replace_one")
            self.assertEqual(replaced, privacy.epsilon(2.0, **settings, accountant=accountant))
        np.testing.assert_allclose(
            privacy.epsilon(4.0, **settings, neighbors="replace_one"),
            gaussian_epsilon(2.0 / math.sqrt(10), 1e-5),
            rtol=1e-3,
        )

    @parameterized.parameters("pld", "rdp")
    def test_replacing_under_poisson_is_a_removal_and_an_addition(self, accountant):
        delta = DIGITS["delta"]
        replaced = privacy.epsilon(1.5, **DIGITS, accountant=accountant, neighbors="replace_one")
        single = replaced / 2
        # (single, delta / (1 + e^single)) is what the run must satisfy under add-or-remove, and just about does.
        needed = privacy.epsilon(1.5, **{**DIGITS, "delta": delta / (1 + math.exp(single))}, accountant=accountant)
        np.testing.assert_allclose(needed, single, rtol=1e-4)
        self.assertLessEqual(needed, single)

    def test_replacing_under_poisson_covers_the_exact_cost_at_full_batches(self):
        found = privacy.epsilon(5.0, 10, 10, 1, 1e-5, sampling="poisson", neighbors="replace_one")
        self.assertGreater(found, gaussian_epsilon(2.5, 1e-5))


class PaperTest(parameterized.TestCase):
    @parameterized.parameters(
        (2.5, 16384, 1281167, 72000, 8e-7, 7.95),
        (2.5, 32768, 1281167, 18000, 8e-7, 7.98),
        (3.0, 4096, 50000, 2500, 1e-5, 7.10),
        (10.0, 4096, 50000, 875, 1e-5, 0.988),
    )
    def test_published_epsilons(self, noise_multiplier, batch_size, num_examples, num_steps, delta, expected):
        arguments = (noise_multiplier, batch_size, num_examples, num_steps, delta)
        by_rdp = privacy.epsilon(*arguments, sampling="poisson", accountant="rdp")
        np.testing.assert_allclose(by_rdp, expected, atol=0.006)
        by_pld = privacy.epsilon(*arguments, sampling="poisson")
        self.assertBetween(by_pld / by_rdp, 0.9, 0.95)

    def test_pld_is_dp_accountings_own(self):
        event = dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(4096 / 50000, dp_accounting.GaussianDpEvent(10.0)), 875
        )
        expected = dp_accounting.pld.PLDAccountant().compose(event).get_epsilon(1e-5)
        self.assertEqual(privacy.epsilon(10.0, 4096, 50000, 875, 1e-5, sampling="poisson"), expected)


class OrderTest(parameterized.TestCase):
    @parameterized.product(
        accountant=accounting.ACCOUNTANTS, sampling=tuple(sampling_schemes.SCHEMES), neighbors=accounting.NEIGHBORS
    )
    def test_monotone_in_noise_steps_and_delta(self, accountant, sampling, neighbors):
        def spent(noise_multiplier=4.0, num_steps=280, delta=1e-5, batch_size=64):
            choices = {"accountant": accountant, "sampling": sampling, "neighbors": neighbors}
            return privacy.epsilon(noise_multiplier, batch_size, 1797, num_steps, delta, **choices)

        reference = spent()
        self.assertLess(spent(noise_multiplier=4.2), reference)
        self.assertGreater(spent(num_steps=310), reference)
        self.assertGreater(spent(delta=1e-6), reference)
        self.assertGreater(spent(num_steps=10**4), reference)

    @parameterized.product(sampling=tuple(sampling_schemes.SCHEMES), accountant=accounting.ACCOUNTANTS)
    def test_replacing_costs_more_than_adding_or_removing(self, sampling, accountant):
        both = [
            privacy.epsilon(4.0, **{**DIGITS, "sampling": sampling}, accountant=accountant, neighbors=n)
            for n in accounting.NEIGHBORS
        ]
        self.assertGreater(both[1], 1.9 * both[0])

    @parameterized.parameters(1e3, 1e6, 1e12)
    def test_enormous_noise_survives_rounding(self, noise_multiplier):
        for accountant in accounting.ACCOUNTANTS:
            found = privacy.epsilon(noise_multiplier, 1, 1797, 280, 1e-5, sampling="poisson", accountant=accountant)
            self.assertBetween(found, 0.0, 0.01)

    def test_sampling_amplifies_and_shuffling_is_not_said_to(self):
        shuffled = {**DIGITS, "sampling": "shuffled"}
        self.assertLess(3 * privacy.epsilon(4.0, **DIGITS), privacy.epsilon(4.0, **shuffled))

    def test_no_steps_cost_nothing_and_no_noise_everything(self):
        for accountant in accounting.ACCOUNTANTS:
            for neighbors in accounting.NEIGHBORS:
                for sampling in tuple(sampling_schemes.SCHEMES):
                    rest = {"delta": 1e-5, "accountant": accountant, "sampling": sampling, "neighbors": neighbors}
                    self.assertEqual(privacy.epsilon(1.0, 64, 1797, 0, **rest), 0.0)
                    self.assertEqual(privacy.epsilon(0.0, 64, 1797, 0, **rest), 0.0)
                    self.assertEqual(privacy.epsilon(0.0, 64, 1797, 1, **rest), math.inf)
                    self.assertEqual(privacy.epsilon(1e-200, 64, 1797, 1, **rest), math.inf)

    @parameterized.parameters("poisson", "shuffled")
    def test_hopelessly_little_noise_is_answered_at_once_and_never_too_low(self, sampling):
        found = [privacy.epsilon(z, 256, 1797, 20, 1e-5, sampling=sampling) for z in (1e-3, 0.02, 0.1)]
        self.assertGreater(found[0], found[1])
        self.assertGreater(found[1], found[2])
        self.assertGreaterEqual(found[2], gaussian_epsilon(0.1, 0.5) if sampling == "shuffled" else 1.0)
        self.assertLess(found[2], math.inf)


class EventTest(parameterized.TestCase):
    def test_events_of_runs(self):
        gaussian = dp_accounting.GaussianDpEvent(1.5)
        self.assertEqual(
            event_of_run(gaussian, sampling="poisson"),
            dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(64 / 1797, gaussian), 280),
        )
        self.assertEqual(event_of_run(gaussian, sampling="shuffled"), dp_accounting.SelfComposedDpEvent(gaussian, 10))
        self.assertEqual(event_of_run(gaussian, num_steps=0, sampling="poisson"), dp_accounting.NoOpDpEvent())

    def test_what_the_mechanism_did_is_what_is_accounted(self):
        done = event_of_run(dp_accounting.GaussianDpEvent(1.5), sampling="poisson")
        self.assertEqual(
            accounting.epsilon_of_event(done, 1e-5, "rdp"), privacy.epsilon(1.5, **DIGITS, accountant="rdp")
        )
        unclipped = event_of_run(dp_accounting.NonPrivateDpEvent(), sampling="poisson")
        self.assertEqual(accounting.epsilon_of_event(unclipped, 1e-5), math.inf)

    @parameterized.product(sampling=("poisson", "shuffled"), accountant=("pld", "rdp"))
    def test_gaussians_on_one_batch_are_one_gaussian(self, sampling, accountant):
        pair = dp_accounting.ComposedDpEvent([dp_accounting.GaussianDpEvent(z) for z in (1.5, 8.0)])
        joint = accounting.joint_noise_multiplier(1.5, 8.0)
        self.assertAlmostEqual(joint, (1.5**-2 + 8.0**-2) ** -0.5, places=12)
        done = event_of_run(pair, sampling=sampling)
        self.assertEqual(
            accounting.epsilon_of_event(done, 1e-5, accountant),
            privacy.epsilon(joint, **{**DIGITS, "sampling": sampling}, accountant=accountant),
        )

    def test_noise_on_one_part_only_is_no_noise(self):
        self.assertEqual(accounting.joint_noise_multiplier(1.5, 0.0), 0.0)
        self.assertEqual(accounting.joint_noise_multiplier(1.5), 1.5)

    def test_noise_that_is_not_a_number_is_none(self):
        event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(math.nan), 10)
        self.assertEqual(accounting.epsilon_of_event(event, 1e-5), math.inf)

    def test_two_stretches_compose(self):
        parts = [event_of_run(dp_accounting.GaussianDpEvent(z), num_steps=100, sampling="shuffled") for z in (4.0, 6.0)]
        both = dp_accounting.ComposedDpEvent(parts)
        combined = 1 / math.sqrt(4 / 4.0**2 + 4 / 6.0**2)
        np.testing.assert_allclose(accounting.epsilon_of_event(both, 1e-5), gaussian_epsilon(combined, 1e-5), rtol=1e-3)
        np.testing.assert_allclose(
            accounting.epsilon_of_event(both, 1e-5, neighbors="replace_one"),
            gaussian_epsilon(combined / 2, 1e-5),
            rtol=1e-3,
        )

    def test_events_that_are_not_gaussian_are_refused(self):
        with self.assertRaisesRegex(ValueError, "`event` must be made of Gaussians"):
            accounting.epsilon_of_event(dp_accounting.LaplaceDpEvent(1.0), 1e-5)


class RefusalTest(parameterized.TestCase):
    @parameterized.parameters(
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", math.inf),
        ("noise_multiplier", "1"),
        ("noise_multiplier", None),
        ("batch_size", 0),
        ("batch_size", 64.0),
        ("batch_size", True),
        ("batch_size", 1798),
        ("num_examples", 0),
        ("num_steps", -1),
        ("num_steps", 2.5),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", -1e-5),
        ("delta", math.nan),
        ("accountant", "moments"),
        ("sampling", "fixed"),
        ("neighbors", "zero_out"),
    )
    def test_nonsense_is_refused_in_one_sentence(self, name, value):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must .*Received: .*{name}={value!r}") as raised:
            privacy.epsilon(**{"noise_multiplier": 1.0, **DIGITS, name: value})
        self.assertNotIn("\n", str(raised.exception))

    def test_who_does_not_say_how_batches_are_drawn_is_told_no_number(self):
        digits = {name: value for name, value in DIGITS.items() if name != "sampling"}
        for call in (
            lambda: privacy.epsilon(1.0, **digits),
            lambda: privacy.noise_multiplier_for(1.0, **digits),
            lambda: privacy.steps_for(1.0, 1.0, 64, 1797, 1e-5),
            lambda: plan.gaussian(1.0, **digits),
        ):
            with self.assertRaisesRegex(TypeError, "required keyword-only argument: 'sampling'"):
                call()

    def test_numpy_numbers_are_numbers(self):
        numbers = (np.float32(4.0), np.int64(64), np.int32(1797), np.int64(280), np.float64(1e-5))
        found = privacy.epsilon(*numbers, sampling="poisson", accountant="rdp")
        self.assertEqual(found, privacy.epsilon(4.0, **DIGITS, accountant="rdp"))


if __name__ == "__main__":
    absltest.main()
