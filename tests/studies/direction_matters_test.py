"""Tests of the directions of SGD's error: the exact law against draws, gradient descent in closed form, the claims."""

import types

import numpy as np
from absl.testing import absltest

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.experiments.report import direction_matters_claims
from noisy_sgd.studies import direction_matters


class TwoSamplesTest(absltest.TestCase):
    def test_law_is_that_of_drawn_steps(self):
        """SGD on x_1 = sqrt(10) e_1 and x_2 = e_2, step by step, 20,000 times: within four standard errors."""
        condition, phases, runs = 10.0, (50, 20), 20_000
        features = np.diag([np.sqrt(condition), 1.0])
        generator, error = keys.arbitrary(0), np.ones((runs, 2))
        for rate, steps in zip((1.9, 0.1), phases, strict=True):
            for _ in range(steps):
                drawn = features[generator.integers(2, size=runs)]
                error = error - rate / condition * np.sum(drawn * error, axis=1, keepdims=True) * drawn
        quotients = np.sum((error @ features) ** 2, axis=1) / 2 / np.sum(error**2, axis=1)
        measured = np.mean(quotients > 0.9 * condition / 2)
        expected = direction_matters.two_samples(condition=condition, phases=phases)["sgd_probability"]
        self.assertBetween(expected, 0.1, 0.9)
        self.assertAlmostEqual(measured, expected, delta=4 * np.sqrt(expected * (1 - expected) / runs))

    def test_gradient_descent(self):
        error, curvature = np.ones(2), np.diag([3.0, 1.0]) / 2
        for rate, steps in ((1.9 / 3, 3), (0.1 / 3, 2)):
            for _ in range(steps):
                error = error - rate * curvature @ error
        expected = error @ curvature @ error / (error @ error) / 0.5
        found = direction_matters.two_samples(condition=3.0, phases=(3, 2))
        self.assertAlmostEqual(found["gd_quotient"], expected, places=12)

    def test_a_rate_below_the_moderate_ones_keeps_the_other_direction(self):
        self.assertGreater(direction_matters.two_samples()["sgd_probability"], 0.99)
        self.assertLess(direction_matters.two_samples(moderate=1.5)["sgd_probability"], 0.01)


class MeasureTest(absltest.TestCase):
    def test_gradient_descent_in_closed_form(self):
        line = direction_matters.measure({"data_seed": 3, "num_runs": 4, "num_steps": 30})
        problem = regression.noisy(3, 20, 200)
        curvature = problem.features.T @ problem.features / 20
        error = -np.linalg.pinv(problem.features) @ problem.targets
        rates = np.repeat([1.9, 0.1], [30, 15]) / np.sum(problem.features**2, axis=1).max()
        expected = []
        for step in range(46):
            if step in line["steps"]:
                expected.append(error @ curvature @ error / (error @ error))
            if step < 45:
                error = error - rates[step] * curvature @ error
        np.testing.assert_allclose(line["gd"], expected, rtol=1e-10)
        for algorithm in ("sgd", "small_sgd"):
            self.assertLen(line[algorithm], len(line["steps"]))
            self.assertAlmostEqual(line[algorithm][0], line["gd"][0])
            self.assertBetween(min(line[algorithm]), line["smallest"], line["largest"])
        self.assertGreater(line["sgd"][-1], line["gd"][-1])


class ClaimsTest(absltest.TestCase):
    def test_order_and_rows(self):
        lines = [
            {"sgd": [5.0, 4.0], "gd": [5.0, 2.0], "small_sgd": [5.0, 3.0 + 2 * (seed < 1)], "largest": 8, "smallest": 2}
            for seed in range(10)
        ]
        found = direction_matters.order(lines)
        self.assertEqual((found["above_gd"], found["above_small_sgd"], found["data_sets"]), (10, 9, 10))
        self.assertAlmostEqual(found["above_gd_p"], 2 / 2**10)
        self.assertAlmostEqual(found["above_small_sgd_p"], 11 / 2**10)
        self.assertEqual((found["sgd_over_largest"], found["gd_over_smallest"]), (0.5, 1.0))
        results = {"order": found, "two_samples": {"sgd_probability": 0.999, "gd_quotient": 1.0}}
        reached = [claim.measure([_run(results)]).reached for claim in direction_matters_claims.CLAIMS]
        self.assertEqual(reached, [True, True, False])
        for spoilt in ({"sgd_probability": 0.98, "gd_quotient": 1.0}, {"sgd_probability": 1.0, "gd_quotient": 1.2}):
            self.assertFalse(direction_matters_claims.two_samples(_run(results | {"two_samples": spoilt})).reached)


def _run(results):
    return types.SimpleNamespace(results=results, directory=types.SimpleNamespace(name="two_phases"))


if __name__ == "__main__":
    absltest.main()
