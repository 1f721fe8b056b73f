"""Tests of the list of measurements behind the theory's rows; what they measure is judged in theory_claims_test.py."""

import numpy as np
from absl.testing import absltest

from noisy_sgd.data import regression
from noisy_sgd.studies import diagonal_linear, theory


class MeasurementsTest(absltest.TestCase):
    def test_names_in_order_and_one_comparison_per_data_set(self):
        names = [name for name, _ in theory.measurements(num_data_sets=3)]
        once = ["sampled_covariance", "theorem_1", "interpolation", "gradient_descent_limit"]
        pairs = ["surrogate_covariance"] * 2, ["weight_product"] * 2
        beside = ["limits", "alpha_ratios", "unstable"]
        smaller = ["compare_at_0.6"] * 32 + ["compare_at_0.5"] * 32
        self.assertEqual(names, [*pairs[0], *once, *pairs[1], *beside, *["compare"] * 3, *smaller])

    def test_alpha_ratios_are_those_of_the_limits_at_the_papers_step(self):
        lines = dict(theory.measurements(share=0.02))["alpha_ratios"]()
        problem = regression.sparse(0)
        setting, trajectory = diagonal_linear.train(problem, num_runs=2, num_steps=600, seed=0, grid=[600])
        expected = [line["log_ratio"] for line in diagonal_linear.limits(problem, setting, trajectory)]
        found = [line["log_ratio"] for line in lines if line["data_seed"] == 0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        self.assertEqual({line["data_seed"] for line in lines}, {0, 1})

    def test_a_share_takes_a_part_of_everything(self):
        measurements = theory.measurements(share=0.001)
        self.assertLen([name for name, _ in measurements if name == "compare"], 2)
        lines = dict(measurements)["interpolation"]()
        self.assertEqual(lines[0]["num_steps"], 20)


if __name__ == "__main__":
    absltest.main()
