"""Tests of the diagonal linear network's measurements: small versions of the report's rows, and the drawn figures."""

import pathlib

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.data import regression
from noisy_sgd.figures import diagonal_linear as figures
from noisy_sgd.sde import linear_stability
from noisy_sgd.studies import diagonal_linear

_PROBLEM = regression.sparse(0, num_examples=12, dimension=30, num_nonzeros=3)


class RowsTest(absltest.TestCase):
    def test_gradient_descent_reaches_its_limit(self):
        coarse, fine = (
            diagonal_linear.gradient_descent_limit(_PROBLEM, relative_step=step, num_steps=int(4_000 / step))[
                "relative_error"
            ]
            for step in (0.2, 0.05)
        )
        self.assertLess(fine, 2e-3)
        self.assertAlmostEqual(coarse / fine, 4.0, delta=1.0)

    def test_product_of_weights(self):
        found = diagonal_linear.weight_product(_PROBLEM, num_steps=300)
        self.assertGreater(found["num_runs"], 0)
        self.assertLess(found["relative_error"], 1e-10)

    def test_limits_at_a_small_step(self):
        setting, trajectory = diagonal_linear.train(
            _PROBLEM, noise_scales=(0.0, 0.5), relative_steps=(0.05,), num_runs=3, num_steps=40_000, grid=[40_000]
        )
        lines = diagonal_linear.limits(_PROBLEM, setting, trajectory)
        self.assertLen(lines, 6)
        for line in lines:
            self.assertLess(line["tilted_discrete"], 1e-8)
            self.assertLessEqual(line["proposition_3_left"], line["tilt_norm"])
            if line["noise_scale"]:
                self.assertGreater(line["untilted"], 100 * line["tilted"])
                self.assertGreater(line["untilted_formula"], 4 * line["tilted_formula"])
        self.assertAlmostEqual(np.mean([line["log_ratio"] for line in lines]), 1.0, delta=0.25)

    def test_compare_and_order(self):
        options = dict(num_examples=12, dimension=30, num_nonzeros=3)
        lines = [diagonal_linear.compare(seed, num_steps=2_000, num_runs=3, **options) for seed in range(2)]
        found = diagonal_linear.order(lines)
        self.assertEqual((found["data_sets"], found["runs_each"]), (2, 3))
        made_up = [
            {"gd": 1.0, "sgd": [0.1, 0.2, 0.3], "noisy_sgd": [0.01, np.nan, np.nan]},
            {"gd": 1.0, "sgd": [0.1, 0.2, 0.3], "noisy_sgd": [0.5, 0.6, 0.01]},
            {"gd": 1.0, "sgd": [0.1, 0.2, np.nan], "noisy_sgd": [np.nan] * 3},
        ]
        found = diagonal_linear.order(made_up)
        self.assertEqual((found["data_sets_with_survivors"], found["in_order"]), (2, 1))
        self.assertEqual((found["in_order_divergence_lost"], found["noisy_better_than_sgd"]), (0, 1))
        self.assertEqual((found["diverged_sgd"], found["diverged_noisy_sgd"]), (1, 5))
        # With divergence as a loss the first data set is lost by noise too.
        self.assertEqual((found["noisy_wins"], found["noisy_losses"]), (0, 3))

    def test_unstable_is_beyond_the_edge(self):
        problem = regression.sparse(1)
        for noise, name in ((0.0, "unstable_sgd"), (0.5, "unstable_noisy_sgd")):
            edge = problem.largest_eigenvalue * linear_stability.edge(problem.features, problem.solution, noise)
            for factor in (0.99, 1.01):
                line = diagonal_linear.unstable(1, relative_step=factor * edge)
                self.assertEqual(line[name], factor > 1)

    def test_trend(self):
        generator = np.random.default_rng(0)
        noise = np.repeat(np.arange(10) / 20, 10)
        rising = diagonal_linear.trend(noise, noise + 0.2 * generator.standard_normal(100))
        self.assertLess(rising["p"], 0.01)
        falling = diagonal_linear.trend(noise, -noise + 0.2 * generator.standard_normal(100))
        self.assertGreater(falling["p"], 0.9)
        self.assertAlmostEqual(diagonal_linear.trend(noise, noise)["correlation"], 1.0)
        levels = [diagonal_linear.trend(noise, generator.standard_normal(100))["p"] for _ in range(40)]
        self.assertBetween(np.mean(levels), 0.3, 0.7)
        # Ranks 1, 3, 3, 3, 5 have variance 8 / 5, ranks 1 to 5 have 2, and their covariance is 8 / 5. NaN is left out.
        tied = diagonal_linear.trend([1, 2, 2, 2, 3, 9], [1, 2, 3, 4, 5, np.nan])
        self.assertAlmostEqual(tied["correlation"], 1.6 / np.sqrt(1.6 * 2))
        self.assertEqual(tied["num_runs"], 5)


class FiguresTest(absltest.TestCase):
    def _record(self, name, metrics, results):
        run = records.create(self.directory / name, {"experiment": name}, privacy="No guarantee: synthetic data.")
        for line in metrics:
            run.append(line)
        run.finish(results)
        return records.read(self.directory / name)

    def test_draws_every_figure(self):
        self.directory = pathlib.Path(self.create_tempdir())
        lines, results = diagonal_linear.measure(
            _PROBLEM, noise_scales=(0.0, 0.2, 0.5), num_runs=3, num_steps=2_000, with_limits=True
        )
        run = self._record("runs", lines, results)
        compared = [diagonal_linear.compare(seed, num_steps=300, num_runs=2) for seed in range(2)]
        order = self._record("order", compared, diagonal_linear.order(compared))
        drawn = [
            *figures.draw_curves(run, self.directory, "figure_3"),
            *figures.draw_distance(run, self.directory, "figure_5"),
            *figures.draw_gap(run, self.directory, "figure_4"),
            *figures.draw_order(order, self.directory, "order"),
        ]
        self.assertLen(drawn, 12)
        for path in drawn:
            self.assertGreater(path.stat().st_size, 100)
        table = (self.directory / "figure_5.csv").read_text()
        self.assertIn("diverged", table.splitlines()[0])

    def test_diverged_runs_are_counted_and_in_no_mean(self):
        self.directory = pathlib.Path(self.create_tempdir())
        lines, results = diagonal_linear.measure(
            _PROBLEM, noise_scales=(0.0,), relative_steps=(0.1, 8.0), num_runs=2, num_steps=300, with_descent=False
        )
        self.assertEqual([line["diverged_at"] >= 0 for line in results["finals"]], [False, False, True, True])
        figures.draw_curves(self._record("runs", lines, results), self.directory, "curves")
        last = (self.directory / "curves.csv").read_text().splitlines()[-1].split(",")
        self.assertEqual(last[-2:], ["2", "2"])
        self.assertLess(float(last[3]), 10.0)


if __name__ == "__main__":
    absltest.main()
