"""Tests of Figures 3, 4 and 6 on many data sets: the runs are those of `diagonal_linear`; trends, counts and claims."""

import types

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.data import regression
from noisy_sgd.experiments.report import many_data_sets_claims, paper_values
from noisy_sgd.studies import diagonal_linear, many_data_sets


class MeasureTest(absltest.TestCase):
    def test_figure_3_is_the_comparison(self):
        case = {"data_seed": 5, "figure": 3, "relative_step": 0.5, "num_runs": 3, "num_steps": 2_000}
        line = many_data_sets.measure(case)
        expected = diagonal_linear.compare(5, relative_step=0.5, num_runs=3, num_steps=300)
        self.assertEqual(line["gd"], expected["gd"])
        means = [np.mean(expected[name]) for name in ("sgd", "noisy_sgd")]
        np.testing.assert_allclose(line["squared_distance"], means, rtol=1e-12)
        self.assertEqual(line["diverged"], [0, 0])

    def test_figure_4_is_the_gap_of_the_limits(self):
        problem = regression.sparse(4)
        setting, trajectory = diagonal_linear.train(
            problem, noise_scales=(0.0, 0.4), relative_steps=(0.3,), num_runs=2, num_steps=3_000, grid=[3_000]
        )
        expected = [line["untilted_formula"] for line in diagonal_linear.limits(problem, setting, trajectory)]
        np.testing.assert_allclose(many_data_sets.gaps(problem, setting, trajectory), expected, rtol=1e-9)
        line = many_data_sets.measure(
            {"data_seed": 4, "figure": 4, "relative_step": 0.3, "num_runs": 1, "num_steps": 3_000}
        )
        correlation = stats.spearmanr(line["noise_scales"], line["gap"]).statistic
        self.assertAlmostEqual(line["trend"], correlation)
        self.assertLen(line["gap"], 10)

    def test_diverged_runs_are_left_out_and_counted(self):
        case = {"data_seed": 5, "figure": 6, "relative_step": 5.0, "num_runs": 2, "num_steps": 200}
        line = many_data_sets.measure(case)
        self.assertEqual(line["diverged"], [2, 2, 2])
        self.assertTrue(np.isnan(line["squared_distance"]).all())


class SummaryTest(parameterized.TestCase):
    def test_trends(self):
        lines = [
            {"figure": 4, "relative_step": step, "trend": sign * 0.5 if seed else None}
            for step, sign in zip(many_data_sets.GAP_STEPS, (1, 1, -1), strict=True)
            for seed in range(12)
        ]
        small, middle, paper = many_data_sets.summary(lines)
        self.assertEqual((small["rises"], small["data_sets"], paper["rises"]), (11, 12, 0))
        # One-sided p of 11 of 12 is 13 / 4096.
        self.assertAlmostEqual(small["p"], 3 * 13 / 4096)
        self.assertAlmostEqual(middle["p"], 3 * 13 / 4096)
        self.assertEqual((paper["p"], paper["correlation"]), (1.0, -0.5))

    @parameterized.parameters((1.0, 2, True), (1.0, 1, False), (2.9, 2, True), (3.1, 2, False))
    def test_values(self, factor, good, reached):
        theirs = paper_values.FIGURE_3
        close = {
            "figure": 3,
            "gd": factor * theirs["gd"],
            "squared_distance": [theirs["sgd"], theirs["noisy_sgd"]],
            "diverged": [0, 1],
        }
        lost = close | {"squared_distance": [theirs["sgd"], None], "diverged": [0, 3]}
        lines = [close] * good + [lost] * (4 - good)
        run = types.SimpleNamespace(metrics=lines, directory=types.SimpleNamespace(name="figures"))
        outcome = many_data_sets_claims.CLAIMS[0].measure([run])
        self.assertEqual(outcome.reached, reached)
        self.assertStartsWith(outcome.here, f"{good if factor < 3 else 0} of 4 data sets")

    def test_trend_rows(self):
        trends = [
            {"relative_step": step, "rises": 12, "data_sets": 12, "p": p, "correlation": 0.9}
            for step, p in zip(many_data_sets.GAP_STEPS, (0.001, 0.009, 0.02), strict=True)
        ]
        run = types.SimpleNamespace(results={"trends": trends}, directory=types.SimpleNamespace(name="figures"))
        reached = [claim.measure([run]).reached for claim in many_data_sets_claims.CLAIMS[2:]]
        self.assertEqual(reached, [True, True, False])


if __name__ == "__main__":
    absltest.main()
