"""Tests of the variance of mini-batch gradients: all draws written out, the fit, and the claims."""

import itertools
import types

import numpy as np
from absl.testing import absltest

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.experiments.report import gradient_variance_claims
from noisy_sgd.studies import gradient_variance


def _all_draws(gradients_of, weights, step_size, num_examples, batch_size, num_steps):
    """E |g_B - grad L|^2 at each step, over every ordered draw of every step; weights is one flat vector."""
    found, states = [], [weights]
    draws = list(itertools.product(range(num_examples), repeat=batch_size))
    for _ in range(num_steps + 1):
        following, squares = [], []
        for state in states:
            gradients = gradients_of(state)
            for draw in draws:
                batch = np.mean([gradients[index] for index in draw], axis=0)
                squares.append(np.sum((batch - np.mean(gradients, axis=0)) ** 2))
                following.append(state - step_size * batch)
        found.append(np.mean(squares))
        states = following
    return found


class ExactTest(absltest.TestCase):
    def test_least_squares(self):
        problem = regression.noisy(1, 3, 2)

        def gradients(theta):
            return [(x @ theta - y) * x for x, y in zip(problem.features, problem.targets, strict=True)]

        found = gradient_variance.linear(problem, 0.3, batch_sizes=(1, 2), num_steps=2)
        for column, batch_size in enumerate((1, 2)):
            expected = _all_draws(gradients, np.zeros(2), 0.3, 3, batch_size, 2)
            np.testing.assert_allclose(found[:, column], expected, rtol=1e-12)

    def test_two_layers(self):
        generator = keys.arbitrary(0)
        features, targets = generator.standard_normal((3, 2)), generator.standard_normal((3, 1))
        first, second = generator.standard_normal((2, 2)), generator.standard_normal((1, 2))

        def gradients(flat):
            inner, outer = flat[:4].reshape(2, 2), flat[4:].reshape(1, 2)
            found = []
            for x, y in zip(features, targets, strict=True):
                residual = outer @ inner @ x - y
                found.append(
                    np.concatenate([np.outer(outer.T @ residual, x).ravel(), np.outer(residual, inner @ x).ravel()])
                )
            return found

        found = gradient_variance.network(features, targets, (first, second), 0.2, batch_sizes=(1, 3), num_steps=1)
        flat = np.concatenate([first.ravel(), second.ravel()])
        for column, batch_size in enumerate((1, 3)):
            expected = _all_draws(gradients, flat, 0.2, 3, batch_size, 1)
            np.testing.assert_allclose(found[:, column], expected, rtol=1e-12)

    def test_gradients_are_those_of_the_loss(self):
        generator = keys.arbitrary(1)
        features, targets = generator.standard_normal((2, 3)), generator.standard_normal((2, 2))
        weights = [generator.standard_normal(shape) for shape in ((1, 2, 3), (1, 2, 2))]
        gradients = gradient_variance.example_gradients(features, targets, weights)

        def losses():
            return np.sum((features @ weights[0][0].T @ weights[1][0].T - targets) ** 2, axis=1) / 2

        for array, gradient in zip(weights, gradients, strict=True):
            array[0, 1, 1] += 1e-6
            above = losses()
            array[0, 1, 1] -= 2e-6
            below = losses()
            array[0, 1, 1] += 1e-6
            np.testing.assert_allclose(gradient[0, :, 1, 1], (above - below) / 2e-6, rtol=1e-6)


class FitTest(absltest.TestCase):
    def test_residual(self):
        sizes = np.array([1, 2, 3, 4, 6, 8])
        variances = 2 / sizes + 3 / sizes**2
        self.assertLess(gradient_variance.fit_residual(sizes, variances, 2), 1e-14)
        self.assertGreater(gradient_variance.fit_residual(sizes, variances, 1), 0.1)
        self.assertGreater(gradient_variance.fit_residual(sizes, variances + 0.1, 2), 1e-3)
        self.assertTrue(np.isnan(gradient_variance.fit_residual(sizes, variances, 6)))


class ClaimsTest(absltest.TestCase):
    def test_measured_lines_reach_the_rows_and_spoilt_ones_do_not(self):
        lines = [
            gradient_variance.measure({"data_seed": seed, "num_runs": 200, "num_steps": 1}) for seed in (10, 11, 12)
        ]
        summary = gradient_variance.summary(lines)
        self.assertEqual(_verdicts(summary), [True] * 6)
        self.assertLess(summary[0]["residuals"][4], 1e-12)
        for name, value, row in (
            ("p", [0.02, 0.001], 0),
            ("residuals", [1e-9, None], 1),
            ("largest_z", 5.0, 1),
            ("largest_changes", [1e-3, 0.5], 2),
            ("smallest_changes", [0.0, 1e-9], 2),
        ):
            spoilt = [summary[0] | {name: value}, summary[1]]
            expected = [True] * 6
            expected[row] = False
            self.assertEqual(_verdicts(spoilt), expected, name)


def _verdicts(summary):
    run = types.SimpleNamespace(results={"summary": summary}, directory=types.SimpleNamespace(name="batch_sizes"))
    return [claim.measure([run]).reached for claim in gradient_variance_claims.CLAIMS]


if __name__ == "__main__":
    absltest.main()
