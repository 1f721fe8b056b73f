"""The audits, small: what a correct run shows, and that a run without its noise or with less is found out."""

import dataclasses
from unittest import mock

import numpy as np
from absl.testing import absltest

from noisy_sgd.mechanisms import gaussian
from noisy_sgd.privacy.auditing import one_run
from noisy_sgd.studies import audit

SETUP = audit.Setup(num_examples=20, hidden=32, num_steps=1, seed=3)
ONE_RUN = {"epsilon": 1.0, "num_canaries": 120, "num_guesses": 60, "num_runs": 4}


class OneRunTest(absltest.TestCase):
    def test_dp_sgd_stays_below_its_claim(self):
        counted = []
        lines = audit.one_run(SETUP, "dp_sgd", advance=counted.append, **ONE_RUN)
        self.assertEqual(sum(counted), 4)
        for line in lines:
            self.assertBetween(line["claimed_epsilon"], 0.99, 1.0)
            self.assertLess(line["epsilon_lower_bound"], 1.0)
            self.assertGreater(line["largest_bound"], 1.0)
            expected = one_run.epsilon_lower_bound(120, 60, line["correct"], SETUP.delta)
            self.assertEqual(line["epsilon_lower_bound"], expected)
            for attack in ("loss_threshold", "likelihood_ratio"):
                self.assertBetween(line[f"{attack}_auc"], 0, 1)
                self.assertLessEqual(line[f"{attack}_tpr_at_0.001"], line[f"{attack}_tpr_at_0.01"])

    def test_noise_that_was_forgotten_is_found(self):
        def forgotten(self, sums, statistic, state, draw):
            return sums, statistic

        with mock.patch.object(gaussian.GaussianSumQuery, "add_noise", forgotten):
            lines = audit.one_run(SETUP, "dp_sgd", **ONE_RUN)
        self.assertLessEqual(lines[0]["claimed_epsilon"], 1.0)
        # Of the 60 guesses about one are wrong in a run, by coins that nobody can repeat; four runs are not all bad.
        self.assertGreater(max(line["epsilon_lower_bound"] for line in lines), 1.0)

    def test_correlated_noise_stays_below_its_claim(self):
        setup = dataclasses.replace(SETUP, num_steps=5, noise_correlation="lambda_cgd:0.9")
        for line in audit.one_run(setup, "dp_sgd", **ONE_RUN):
            self.assertBetween(line["claimed_epsilon"], 0.99, 1.0)
            self.assertLess(line["epsilon_lower_bound"], 1.0)
        # The noise of the claim is that of the strategy matrix, not that of five independent Gaussians.
        training = setup.training("dp_sgd", 1.0, 140)
        independent = SETUP.training("dp_sgd", 1.0, 140).noise_multiplier
        matrix = np.linalg.inv(np.eye(5) - 0.9 * np.eye(5, k=-1))
        self.assertAlmostEqual(training.noise_multiplier / independent, np.linalg.norm(matrix.sum(1)), delta=1e-3)
        with self.assertRaisesRegex(ValueError, "`noise_correlation` must be None for many runs"):
            audit.many_runs(setup, "dp_sgd", epsilon=1.0, num_trials=600)

    def test_gradients_of_the_canaries(self):
        images = audit.canaries.add(audit.bundled.load("digits", train_size=5), 3)
        model = audit.builders.network(audit.config.Model(model="mlp", hidden=(4,)), images, 0)
        model.compile("sgd", audit.builders.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = images.train_images[-3:], images.train_labels[-3:]
        raw, clipped = audit._gradients(model, x, y, None), audit._gradients(model, x, y, 0.1)
        before = audit._losses(model, x, y)
        np.testing.assert_allclose(np.linalg.norm(clipped, axis=1), 0.1, rtol=1e-5)
        # A small step along a canary's gradient changes its loss by the step times the squared norm.
        first, step = 0, 1e-3
        weights = model.get_weights()
        for weight in weights:
            weight -= step * raw[0, first : first + weight.size].reshape(weight.shape)
            first += weight.size
        model.set_weights(weights)
        change = before[0] - audit._losses(model, x, y)[0]
        self.assertAlmostEqual(change / (step * np.sum(raw[0] ** 2)), 1.0, delta=0.1)


class ManyRunsTest(absltest.TestCase):
    def test_noisy_sgd_exceeds_the_claim_of_its_noise(self):
        line = audit.many_runs(SETUP, "noisy_sgd", epsilon=1.0, num_trials=600)
        self.assertGreater(line["epsilon_lower_bound"], 2.0)
        self.assertEqual((line["positives"], line["negatives"]), (270, 270))
        self.assertEqual(line["claimed_epsilon"], np.inf)

    def test_summary(self):
        lines = [
            {
                "audit": "one run",
                "algorithm": "dp_sgd",
                "epsilon": 1.0,
                "epsilon_lower_bound": bound,
                "largest_bound": 3.0,
            }
            for bound in (0.5, 1.5, 0.0)
        ]
        (found,) = audit.summary(lines)
        self.assertEqual((found["count"], found["below"], found["lowest"], found["highest"]), (3, 2, 0.0, 1.5))


if __name__ == "__main__":
    absltest.main()
