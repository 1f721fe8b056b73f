"""Tests of the deep networks' effective alpha and tilt: identities of gradient flow, Ito's drift, the limit D -> 2."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.data import regression
from noisy_sgd.sde import deep_diagonal, diagonal_linear
from noisy_sgd.toy import settings, simulation

_PROBLEM = regression.sparse(0, num_examples=10, dimension=25, num_nonzeros=3)


def _trained(num_steps, seed=0, **changes):
    values = dict(
        model="diagonal_linear",
        features=_PROBLEM.features,
        targets=_PROBLEM.targets,
        num_runs=4,
        step_size=0.002,
        initial=0.3,
    )
    setting = settings.RunSettings(**(values | changes))
    return setting, simulation.simulate(setting, num_steps, seed, grid=[num_steps])


class InvariantsTest(parameterized.TestCase):
    @parameterized.parameters(2, 3, 4)
    def test_gradient_descent_keeps_alpha_and_tilt(self, depth):
        """Both errors are of first order in the step size; at depth 2 the tilt's is of second."""
        errors = []
        for step_size, num_steps in ((0.004, 2_000), (0.001, 8_000)):
            _, trajectory = _trained(num_steps, num_runs=1, step_size=step_size, batch_size=None, depth=depth)
            self.assertLess(trajectory.loss[-1, 0], 0.1)
            alphas = deep_diagonal.effective_alpha(trajectory.weights, depth)
            tilt = deep_diagonal.tilt(trajectory.weights, _PROBLEM.features, depth)
            errors.append((np.abs(alphas / 0.3 - 1).max(), np.abs(tilt).max()))
        np.testing.assert_allclose(np.divide(*errors), [4.0, 16.0 if depth == 2 else 4.0], rtol=0.2)
        self.assertLess(errors[1][0], 0.02)

    def test_depth_two_is_the_paper_s(self):
        setting, trajectory = _trained(500, noise_scale=0.5)
        np.testing.assert_array_equal(
            deep_diagonal.effective_alpha(trajectory.weights, 2),
            diagonal_linear.effective_alpha_from_weights(trajectory.weights),
        )
        np.testing.assert_array_equal(
            deep_diagonal.tilt(trajectory.weights, _PROBLEM.features, 2),
            diagonal_linear.discrete_tilt(trajectory.weights, _PROBLEM.features),
        )
        arguments = (0.3, _PROBLEM.features, 0.002, 0.5, trajectory.loss_integral[-1])
        np.testing.assert_array_equal(
            deep_diagonal.predicted_alpha(*arguments, depth=2), diagonal_linear.effective_alpha(*arguments)
        )

    @parameterized.parameters(3, 4)
    def test_drift_of_the_sum_of_powers(self, depth):
        """Ito's drift with the step's own variance, 400 runs and 300 steps: means within 2 %, and no martingale."""
        setting, _ = _trained(1, num_runs=400, noise_scale=1.0, depth=depth)
        generator, weights = np.random.default_rng(0), setting.initial
        power, drift = 2.0 - depth, 0.0
        for _ in range(300):
            residual = setting.predictor(weights) @ _PROBLEM.features.T - _PROBLEM.targets
            square = np.mean(residual**2, axis=1)[:, None]
            variance = 0.002**2 * (residual**2 @ _PROBLEM.features**2 / 10 + square)
            drift = drift + variance * np.sum(weights**-power, axis=1)
            index = generator.integers(10, size=400)
            step = residual[np.arange(400), index][:, None] * _PROBLEM.features[index]
            step = 0.002 * (step - np.sqrt(square) * generator.standard_normal(step.shape))
            signs = np.array([[-1.0], [1.0]])
            weights = weights + signs * depth / 2 * step[:, None] * weights ** (depth - 1)
        drift = depth**2 * (depth - 1) * (depth - 2) / 8 * drift
        grown = np.sum(weights**power, axis=1) - 2 * 0.3**power
        self.assertAlmostEqual(grown.mean() / drift.mean(), 1.0, delta=0.02)
        np.testing.assert_allclose(grown.mean(axis=1) / drift.mean(axis=1), 1.0, atol=0.3)

    @parameterized.parameters(3, 4)
    def test_predicted_alpha(self, depth):
        """Where the solution is 0, at a small step, the median ratio of logarithms is 1 within 15 %."""
        setting, trajectory = _trained(6_000, num_runs=20, step_size=0.003, noise_scale=2.0, depth=depth)
        self.assertFalse(trajectory.diverged.any())
        measured = deep_diagonal.effective_alpha(trajectory.weights, depth)
        predicted = deep_diagonal.predicted_alpha(
            0.3, _PROBLEM.features, 0.003, 2.0, trajectory.loss_integral[-1], depth
        )
        ratio = (np.log(measured / 0.3) / np.log(predicted / 0.3))[:, _PROBLEM.solution == 0]
        self.assertAlmostEqual(np.median(ratio), 1.0, delta=0.15)
        # Eq. (21) would be far off.
        paper = diagonal_linear.effective_alpha(0.3, _PROBLEM.features, 0.003, 2.0, trajectory.loss_integral[-1])
        wrong = np.log(measured / 0.3) / np.log(paper / 0.3)
        self.assertGreater(abs(np.median(wrong) - 1.0), 0.4)

    def test_extreme_weights(self):
        weights = np.array([[1e-200, 3.0], [1e120, -3.0]])
        np.testing.assert_allclose(deep_diagonal.effective_alpha(weights, 4), [2**0.5 * 1e-200, 3.0])

    def test_refuses_depth_one(self):
        with self.assertRaisesRegex(ValueError, "Received: depth=1"):
            deep_diagonal.effective_alpha(np.ones((2, 3)), 1)


if __name__ == "__main__":
    absltest.main()
