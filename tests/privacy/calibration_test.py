"""Calibrate, then account: the identity, and on the safe side of it."""

import math

from absl.testing import absltest, parameterized

from noisy_sgd import privacy
from noisy_sgd.privacy import calibration

DIGITS = {"batch_size": 64, "num_examples": 1797, "delta": 1e-5, "sampling": "poisson"}


def one_unit_less(noise_multiplier: float) -> float:
    """The next smaller number of five significant digits."""
    unit = 10.0 ** (math.floor(math.log10(noise_multiplier)) - 4)
    return noise_multiplier - unit


class NoiseMultiplierForTest(parameterized.TestCase):
    @parameterized.parameters(
        {"epsilon": 1.0, "accountant": "pld"},
        {"epsilon": 0.1, "accountant": "pld"},
        {"epsilon": 8.0, "accountant": "rdp"},
        {"epsilon": 1.0, "accountant": "rdp", "neighbors": "replace_one"},
        {"epsilon": 2.0, "accountant": "pld", "sampling": "shuffled"},
        {"epsilon": 0.5, "accountant": "rdp", "sampling": "shuffled", "neighbors": "replace_one"},
        {"epsilon": 1e6, "accountant": "pld", "sampling": "shuffled"},
        {"epsilon": 1.0, "accountant": "pld", "sampling": "random_allocation"},
        {"epsilon": 8.0, "accountant": "pld", "sampling": "random_allocation"},
        {"epsilon": 2.0, "accountant": "rdp", "sampling": "random_allocation"},
        {"epsilon": 2.0, "accountant": "pld", "sampling": "random_allocation", "neighbors": "replace_one"},
    )
    def test_accounting_gives_the_budget_back(self, epsilon, **choices):
        noise_multiplier = privacy.noise_multiplier_for(epsilon, num_steps=280, **{**DIGITS, **choices})
        spent = privacy.epsilon(noise_multiplier, num_steps=280, **{**DIGITS, **choices})
        self.assertLessEqual(spent, epsilon)
        self.assertGreater(spent, epsilon * (1 - 1e-3))
        # No number of five digits that is a whole unit of its leading digit smaller would do.
        less = one_unit_less(noise_multiplier) * (1 - 1e-4)
        self.assertGreater(privacy.epsilon(less, num_steps=280, **{**DIGITS, **choices}), epsilon)

    def test_pld_needs_less_noise_than_rdp(self):
        by_pld, by_rdp = (
            privacy.noise_multiplier_for(1.0, num_steps=280, **DIGITS, accountant=a) for a in ("pld", "rdp")
        )
        self.assertBetween(by_pld / by_rdp, 0.9, 0.98)

    def test_the_noise_of_de_et_al(self):
        found = privacy.noise_multiplier_for(0.988, 4096, 50000, 875, 1e-5, sampling="poisson", accountant="rdp")
        self.assertAlmostEqual(found, 10.0, delta=0.01)

    def test_no_steps_need_no_noise(self):
        self.assertEqual(privacy.noise_multiplier_for(1.0, num_steps=0, **DIGITS), 0.0)

    @parameterized.parameters(0.0, -1.0, math.inf, math.nan)
    def test_a_budget_must_be_a_positive_number(self, epsilon):
        with self.assertRaisesRegex(ValueError, "`epsilon` must be a finite number above 0. Received: epsilon="):
            privacy.noise_multiplier_for(epsilon, num_steps=280, **DIGITS)


class StepsForTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"accountant": "pld"}, 1),
        ({"accountant": "rdp"}, 1),
        ({"accountant": "rdp", "neighbors": "replace_one"}, 1),
        ({"accountant": "pld", "sampling": "shuffled"}, 29),
        ({"accountant": "rdp", "sampling": "random_allocation"}, 29),
    )
    def test_one_more_would_pass_the_budget(self, choices, stride):
        num_steps = privacy.steps_for(2.0, 4.0 * math.sqrt(stride) / 2, **{**DIGITS, **choices})
        self.assertGreater(num_steps, 0)
        self.assertEqual(num_steps % stride, 0)

        def spent(num_steps):
            return privacy.epsilon(4.0 * math.sqrt(stride) / 2, num_steps=num_steps, **{**DIGITS, **choices})

        self.assertLessEqual(spent(num_steps), 2.0)
        self.assertGreater(spent(num_steps + 1), 2.0)

    @parameterized.product(choices=({"sampling": "shuffled"}, {"sampling": "poisson"}), count_noise=(6.0, 40.0))
    def test_the_steps_of_a_learned_clip(self, choices, count_noise):
        joint = privacy.accounting.joint_noise_multiplier(5.0, count_noise)
        run = {"noise_multiplier": joint, **DIGITS, "accountant": "rdp", **choices}
        num_steps = privacy.steps_for(3.0, **run)
        self.assertBetween(num_steps, 1, privacy.steps_for(3.0, **{**run, "noise_multiplier": 5.0}))
        self.assertLessEqual(privacy.epsilon(**run, num_steps=num_steps), 3.0)
        self.assertGreater(privacy.epsilon(**run, num_steps=num_steps + 1), 3.0)

    def test_a_capacity_takes_steps_away(self):
        run = {"noise_multiplier": 4.0, **DIGITS, "accountant": "rdp"}
        num_steps = privacy.steps_for(1.0, **run, capacity=110)
        self.assertBetween(num_steps, 1, privacy.steps_for(1.0, **run) - 1)
        self.assertLessEqual(privacy.epsilon(**run, num_steps=num_steps, capacity=110), 1.0)
        self.assertGreater(privacy.epsilon(**run, num_steps=num_steps + 1, capacity=110), 1.0)

    def test_it_inverts_the_calibration(self):
        run = {**DIGITS, "accountant": "rdp"}
        noise_multiplier = privacy.noise_multiplier_for(2.0, num_steps=2800, **run)
        self.assertBetween(privacy.steps_for(2.0, noise_multiplier, **run), 2800, 2802)

    def test_nothing_fits_and_everything_fits(self):
        self.assertEqual(privacy.steps_for(0.01, 1.0, **DIGITS), 0)
        self.assertEqual(privacy.steps_for(1.0, 0.0, **DIGITS), 0)
        self.assertEqual(privacy.steps_for(1.0, 1e6, **DIGITS, accountant="rdp"), calibration.LARGEST_NUM_STEPS)


if __name__ == "__main__":
    absltest.main()
