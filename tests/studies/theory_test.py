"""Tests of the list of measurements behind the theory's rows; what they measure is judged in theory_claims_test.py."""

from absl.testing import absltest

from noisy_sgd.studies import theory


class MeasurementsTest(absltest.TestCase):
    def test_names_in_order_and_one_comparison_per_data_set(self):
        names = [name for name, _ in theory.measurements(num_data_sets=3)]
        once = ["sampled_covariance", "theorem_1", "interpolation", "gradient_descent_limit"]
        pairs = ["surrogate_covariance"] * 2, ["weight_product"] * 2
        self.assertEqual(names, [*pairs[0], *once, *pairs[1], "limits", *["compare"] * 3])

    def test_a_share_takes_a_part_of_everything(self):
        measurements = theory.measurements(share=0.001)
        self.assertLen([name for name, _ in measurements if name == "compare"], 2)
        lines = dict(measurements)["interpolation"]()
        self.assertEqual(lines[0]["num_steps"], 20)


if __name__ == "__main__":
    absltest.main()
