"""What noise that is correlated over steps costs: plans, restarts, calibration, budgets in steps, and statements."""

import dataclasses
import json
import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling
from noisy_sgd.mechanisms import correlated, toeplitz
from noisy_sgd.mechanisms import gaussian as gaussian_noise
from noisy_sgd.privacy import accounting, calibration, ledger, plan, statement

# 25 steps per epoch.
SIZES = {"num_examples": 1600, "batch_size": 64}
NOISE = correlated.CorrelatedNoise.lambda_cgd(0.9)
RUN = {**SIZES, "delta": 1e-5, "sampling": "cyclic", "accountant": "rdp"}


def made(noise_multiplier=8.0, num_steps=100, scheme=sampling.Cyclic, noise=NOISE, **changes):
    mechanism = noise.make(1.0, noise_multiplier, SIZES["batch_size"], None)
    settings = {"num_steps": num_steps, "delta": 1e-5, "accountant": "rdp", **changes}
    return privacy.Plan(event=mechanism, sampling=scheme(*SIZES.values()), **settings)


def sensitivity(epochs, noise=NOISE):
    return toeplitz.sensitivity(noise.coefficients, 25 * epochs, 25, epochs)


def gaussian(noise_multiplier, **choices):
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    return accounting.epsilon_of_event(event, 1e-5, choices.pop("accountant", "rdp"), **choices)


class PlanTest(parameterized.TestCase):
    @parameterized.product(accountant=accounting.ACCOUNTANTS, neighbors=accounting.NEIGHBORS)
    def test_a_run_is_one_gaussian_over_the_sensitivity(self, accountant, neighbors):
        choices = {"accountant": accountant, "neighbors": neighbors}
        found = made(**choices).epsilon
        # Replacing an example moves the sums twice as far.
        factor = 2 if neighbors == "replace_one" else 1
        self.assertAlmostEqual(found, gaussian(8.0 / sensitivity(4) / factor, accountant=accountant), places=9)

    def test_one_coefficient_costs_what_independent_noise_costs(self):
        one = made(noise=correlated.CorrelatedNoise([1.0]))
        independent = privacy.epsilon(8.0, num_steps=100, **RUN)
        self.assertAlmostEqual(one.epsilon, independent, places=7)

    def test_a_scaled_recipe_is_noise_of_another_scale(self):
        half = made(noise_multiplier=16.0, noise=correlated.CorrelatedNoise([0.5, -0.45]))
        self.assertAlmostEqual(half.epsilon, made().epsilon, places=9)

    def test_a_started_epoch_is_spent(self):
        self.assertEqual(made(num_steps=76).epsilon, made(num_steps=100).epsilon)
        self.assertLess(made(num_steps=75).epsilon, made(num_steps=76).epsilon)

    @parameterized.parameters(sampling.Poisson, sampling.Shuffled, sampling.RandomAllocation)
    def test_other_schemes_are_refused_with_the_reason(self, scheme):
        with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic'.*a fixed number of steps apart"):
            _ = made(scheme=scheme).epsilon

    def test_known_batches_change_nothing(self):
        self.assertEqual(made(batches_known=True).epsilon, made().epsilon)
        self.assertFalse(made().amplified)

    def test_its_text_counts_the_steps_of_all_attempts(self):
        text = made().with_attempts([50, 25, 100]).text
        self.assertIn("after 175 steps", text)
        self.assertIn("at most 7 times", text)

    def test_earlier_attempts_of_independent_noise_are_refused(self):
        # All of its steps are priced together; what `earlier` holds would be left out.
        for event in (dp_accounting.GaussianDpEvent(8.0), gaussian_noise.IndependentNoise().make(1.0, 8.0, 64, None)):
            with self.assertRaisesRegex(ValueError, "`earlier` must be empty.*Received: earlier=\\(50,\\)"):
                dataclasses.replace(made(), event=event, earlier=(50,))

    def test_two_runs_compose(self):
        together = privacy.composed([made(), made(noise_multiplier=6.0)], delta=1e-5)
        joint = accounting.joint_noise_multiplier(8.0 / sensitivity(4), 6.0 / sensitivity(4))
        self.assertAlmostEqual(together.epsilon, gaussian(joint), places=9)


class RestartTest(parameterized.TestCase):
    @parameterized.parameters(
        (((0, 100),), (4,)),
        (((0, 60), (50, 100)), (3, 2)),
        # From the middle of an epoch to the middle of another: an example takes part at most twice.
        (((0, 60), (60, 90)), (3, 2)),
        (((0, 100), (0, 0)), (4,)),
        (((0, 30), (0, 30), (10, 100)), (2, 2, 4)),
    )
    def test_every_attempt_is_a_gaussian_of_its_own_epochs(self, attempts, epochs):
        joint = accounting.joint_noise_multiplier(*(8.0 / sensitivity(count) for count in epochs))
        self.assertAlmostEqual(ledger.spent(ledger.Ledger(attempts), made()), gaussian(joint), places=9)

    def test_no_attempt_costs_less_than_the_worst_example_in_it(self):
        rng = np.random.default_rng(0)
        for _ in range(30):
            first = int(rng.integers(0, 60))
            end = first + int(rng.integers(1, 60))
            counted = made().with_attempts([made().sampling.counted_steps(first, end)])
            matrix = np.linalg.inv(np.eye(end - first) - 0.9 * np.eye(end - first, k=-1))
            worst = max(
                np.linalg.norm(matrix[:, [step - first for step in range(first, end) if step % 25 == place]].sum(1))
                for place in range(25)
            )
            self.assertGreaterEqual(counted.epsilon, gaussian(8.0 / worst) * (1 - 1e-9))

    def test_a_repeated_attempt_costs_more_and_an_exact_replay_nothing(self):
        once = ledger.Ledger().covering(100)
        self.assertEqual(ledger.spent(once.covering(60), made()), ledger.spent(once, made()))
        again = once.restarted(60).covering(100)
        self.assertGreater(ledger.spent(again, made()), 1.1 * ledger.spent(once, made()))

    def test_a_budget_ends_a_resumed_run_in_time(self):
        record = ledger.Ledger().covering(60).restarted(40)
        for epsilon in (3.0, 5.0):
            end = ledger.end_within(record, epsilon, made())
            self.assertLessEqual(ledger.spent(record.covering(end), made()), epsilon)
            self.assertGreater(ledger.spent(record.covering(end + 1), made()), epsilon)
        # Nothing is left: the attempt ends where it began.
        self.assertEqual(ledger.end_within(record, 0.1, made()), 40)


class CalibrationTest(parameterized.TestCase):
    @parameterized.product(epsilon=(1.0, 8.0), accountant=accounting.ACCOUNTANTS)
    def test_accounting_gives_the_budget_back(self, epsilon, accountant):
        run = {**RUN, "accountant": accountant, "noise": NOISE, "num_steps": 90}
        found = privacy.noise_multiplier_for(epsilon, **run)
        self.assertBetween(privacy.epsilon(found, **run), epsilon * (1 - 1e-3), epsilon)
        self.assertEqual(made(found, 90, accountant=accountant).epsilon, privacy.epsilon(found, **run))
        # The statement of the run that trains with it claims no more.
        said = statement.statement("dp_sgd", made(found, 90, accountant=accountant))
        self.assertEqual(said.epsilon, privacy.epsilon(found, **run))

    def test_one_more_step_would_pass_the_budget(self):
        steps = privacy.steps_for(4.0, 8.0, **RUN, noise=NOISE)
        self.assertEqual(steps % 25, 0)
        self.assertLessEqual(made(num_steps=steps).epsilon, 4.0)
        self.assertGreater(made(num_steps=steps + 1).epsilon, 4.0)
        self.assertEqual(calibration.most_steps(4.0, made()), steps)

    def test_poisson_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic'"):
            privacy.noise_multiplier_for(1.0, num_steps=90, **{**RUN, "sampling": "poisson"}, noise=NOISE)


class StatementTest(absltest.TestCase):
    def test_it_names_the_noise_and_the_batches(self):
        said = statement.statement("dp_sgd", made())
        self.assertTrue(said.guaranteed)
        self.assertIn("exactly 25 steps apart", said.text)
        self.assertIn("the noise of a step is 1, -0.9 times its own draw and those of the steps before it", said.text)
        self.assertNotIn("amplification by Poisson", said.text)
        record = json.loads(json.dumps(said.as_dict(), allow_nan=False))
        self.assertEqual((record["noise_correlation"], record["sampling"]), ([1.0, -0.9], "cyclic"))

    def test_a_resumed_run_says_what_it_spent(self):
        attempts = ((0, 60), (50, 100))
        said = statement.statement("dp_sgd", made(), attempts=attempts)
        self.assertEqual(said.epsilon, ledger.spent(ledger.Ledger(attempts), made()))
        self.assertIn("steps 0 to 59, and again with other noise steps 50 to 99", said.text)
        self.assertIn("at most 5 times, exactly 25 steps apart within one attempt", said.text)

    def test_no_noise_guarantees_nothing(self):
        said = statement.statement("dp_sgd", made(noise_multiplier=0.0))
        self.assertEqual((said.guaranteed, said.epsilon), (False, math.inf))

    def test_a_plan_without_an_optimizer(self):
        facade = plan.gaussian(8.0, num_steps=100, **RUN, noise=NOISE)
        self.assertEqual(facade.epsilon, made().epsilon)
        self.assertFalse(facade.independent_steps)


if __name__ == "__main__":
    absltest.main()
