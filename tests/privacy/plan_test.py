"""Plans: a mechanism and a scheme joined, against dp_accounting and the facades."""

import dataclasses
import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling
from noisy_sgd.mechanisms import adaptive_clipping, gaussian
from noisy_sgd.privacy import calibration, plan

SIZES = (1797, 64)


def run(event, scheme=None, **changes):
    settings = {"num_steps": 280, "delta": 1e-5, "accountant": "rdp", **changes}
    return privacy.Plan(event=event, sampling=scheme or sampling.Poisson(*SIZES), **settings)


class PlanTest(parameterized.TestCase):
    @parameterized.parameters(sampling.Poisson, sampling.Shuffled)
    def test_a_mechanism_and_its_event_cost_the_same(self, kind):
        mechanism = gaussian.IndependentNoise().make(0.3, 4.0, 64, None)
        by_event = run(mechanism.event, kind(*SIZES))
        self.assertEqual(run(mechanism, kind(*SIZES)).epsilon, by_event.epsilon)
        self.assertAlmostEqual(
            by_event.epsilon,
            privacy.epsilon(4.0, 64, 1797, 280, 1e-5, sampling=kind.name, accountant="rdp"),
            places=12,
        )

    def test_the_event_of_a_run_is_dp_accountings(self):
        event = dp_accounting.GaussianDpEvent(4.0)
        sampled = dp_accounting.PoissonSampledDpEvent(64 / 1797, event)
        self.assertEqual(run(event).event_of_run, dp_accounting.SelfComposedDpEvent(sampled, 280))
        shuffled = run(event, sampling.Shuffled(*SIZES)).event_of_run
        self.assertEqual(shuffled, dp_accounting.SelfComposedDpEvent(event, 10))
        self.assertEqual(run(event).with_steps(0).event_of_run, dp_accounting.NoOpDpEvent())

    def test_a_learned_clip_costs_the_joint_gaussian(self):
        mechanism = adaptive_clipping.AdaptiveClipping(count_stddev=4.0).make(1.0, 4.0, 64, None)
        joint = (4.0**-2 + 8.0**-2) ** -0.5
        expected = privacy.epsilon(joint, 64, 1797, 280, 1e-5, sampling="poisson", accountant="rdp")
        self.assertEqual(run(mechanism).epsilon, expected)

    def test_batches_that_are_known_amplify_nothing(self):
        secret, known = (run(dp_accounting.GaussianDpEvent(4.0), batches_known=known) for known in (False, True))
        self.assertTrue(secret.amplified)
        self.assertFalse(known.amplified)
        self.assertEqual(known.epsilon, privacy.epsilon(4.0, 1, 1, 280, 1e-5, sampling="shuffled", accountant="rdp"))
        self.assertGreater(known.epsilon, 3 * secret.epsilon)

    def test_a_capacity_is_paid_from_delta(self):
        event = dp_accounting.GaussianDpEvent(4.0)
        capped = run(event, sampling.CappedPoisson(*SIZES, capacity=120))
        self.assertEqual(
            capped.epsilon,
            privacy.epsilon(4.0, 64, 1797, 280, 1e-5, sampling="poisson", accountant="rdp", capacity=120),
        )
        self.assertGreater(capped.epsilon, run(event).epsilon)

    def test_it_answers_in_words(self):
        self.assertRegex(
            run(dp_accounting.GaussianDpEvent(4.0)).text,
            r"^epsilon = [\d.]+ at delta = 1e-05 \(add_or_remove, rdp\) after 280 steps: Poisson, each of 1797",
        )

    def test_calibration_inverts_it(self):
        shuffled = run(dp_accounting.GaussianDpEvent(4.0), sampling.Shuffled(*SIZES))
        steps = calibration.most_steps(2.0, shuffled)
        self.assertEqual(steps % 29, 0)
        self.assertLessEqual(shuffled.with_steps(steps).epsilon, 2.0)
        self.assertGreater(shuffled.with_steps(steps + 1).epsilon, 2.0)
        noise = calibration.least_noise(
            2.0, lambda z: dataclasses.replace(shuffled, event=dp_accounting.GaussianDpEvent(z))
        )
        found = dataclasses.replace(shuffled, event=dp_accounting.GaussianDpEvent(noise)).epsilon
        np.testing.assert_allclose(found, 2.0, rtol=2e-4)
        self.assertLessEqual(found, 2.0)

    def test_no_noise_is_no_privacy(self):
        mechanism = gaussian.IndependentNoise().make(1.0, 0.0, 64, None)
        self.assertEqual(run(mechanism).epsilon, math.inf)
        self.assertEqual(run(mechanism, num_steps=0).epsilon, 0.0)

    @parameterized.parameters(
        ({"event": 4.0}, "`event` must be a mechanism.*Received: event=4.0"),
        ({"sampling": "poisson"}, "`sampling` must be a noisy_sgd.sampling.Scheme.*Received: sampling='poisson'"),
        ({"num_steps": -1}, "`num_steps` must be"),
        ({"delta": 0.0}, "`delta` must be"),
        ({"neighbors": "zero_out"}, "`neighbors` must be one of"),
        ({"accountant": "moments"}, "`accountant` must be one of"),
    )
    def test_bad_arguments_are_refused(self, changes, message):
        good = {
            "event": dp_accounting.GaussianDpEvent(4.0),
            "sampling": sampling.Poisson(*SIZES),
            "num_steps": 1,
            "delta": 1e-5,
        }
        with self.assertRaisesRegex(ValueError, message):
            privacy.Plan(**{**good, **changes})

    def test_a_capacity_needs_poisson(self):
        with self.assertRaisesRegex(ValueError, "`capacity` must be None unless"):
            plan.gaussian(1.0, 64, 1797, 1, 1e-5, sampling="shuffled", capacity=80)


if __name__ == "__main__":
    absltest.main()
