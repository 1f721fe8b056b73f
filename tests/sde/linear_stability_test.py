"""Tests of the mean-square stability: a scalar case by hand, the map against simulated squares, gradient descent."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.data import regression
from noisy_sgd.sde import linear_stability

_PROBLEM = regression.sparse(1, num_examples=10, dimension=25, num_nonzeros=3)


class EdgeTest(parameterized.TestCase):
    @parameterized.product(depth=[2, 3], noise_scale=[0.0, 0.5])
    def test_one_coordinate_by_hand(self, depth, noise_scale):
        features, solution = np.array([[1.0], [2.0], [0.5]]), np.array([0.7])
        size = depth**2 / 2 * 0.7 ** (2 - 2 / depth)
        second, fourth = np.mean(features**2), np.mean(features**4)
        # E (1 - g m x^2)^2 + g^2 m^2 sigma^2 h = 1 at g = 2 h / (m (f + sigma^2 h)).
        by_hand = 2 * second / (size * (fourth + noise_scale**2 * second))
        found = linear_stability.edge(features, solution, noise_scale, depth)
        self.assertAlmostEqual(found / by_hand, 1.0, places=9)

    def test_gradient_descent_is_two_over_the_curvature(self):
        features = _PROBLEM.features[:, :3]
        curvature = 2 * np.abs(_PROBLEM.solution[:3])[:, None] * features.T @ features / 10
        found = linear_stability.edge(_PROBLEM.features, _PROBLEM.solution, batch_size=None)
        self.assertAlmostEqual(found * np.linalg.eigvals(curvature).real.max(), 2.0, places=6)

    def test_noise_lowers_and_batches_raise_it(self):
        arguments = _PROBLEM.features, _PROBLEM.solution
        edges = [linear_stability.edge(*arguments, noise) for noise in (0.0, 0.5, 1.0)]
        self.assertEqual(sorted(edges, reverse=True), edges)
        batches = [linear_stability.edge(*arguments, batch_size=size) for size in (1, 4, None)]
        self.assertEqual(sorted(batches), batches)

    @parameterized.parameters(2, 3)
    def test_map_is_the_linearised_step(self, depth):
        """The mean square after 6 linearized steps against the power of the map, 4 standard errors."""
        generator, num_paths = np.random.default_rng(0), 40_000
        features, values, noise_scale = _PROBLEM.features[:, :3], np.abs(_PROBLEM.solution[:3]), 0.5
        step_size = 0.5 * linear_stability.edge(_PROBLEM.features, _PROBLEM.solution, noise_scale, depth)
        start = np.array([1.0, -1.0, 0.5])
        error = np.tile(start, (num_paths, 1))
        for _ in range(6):
            residual = error @ features.T
            index = generator.integers(10, size=num_paths)
            noise = noise_scale * np.sqrt(np.mean(residual**2, axis=1, keepdims=True))
            step = residual[np.arange(num_paths), index][:, None] * features[index]
            step -= noise * generator.standard_normal(step.shape)
            error -= step_size * depth**2 / 2 * values ** (2 - 2 / depth) * step
        drift, sampling, added = linear_stability._maps(
            _PROBLEM.features, _PROBLEM.solution, noise_scale, depth, batch_size=1
        )
        mean = np.eye(3) - step_size * drift
        transfer = np.kron(mean, mean) + step_size**2 * (sampling + added)
        expected = (np.linalg.matrix_power(transfer, 6) @ np.outer(start, start).ravel()).reshape(3, 3)
        squares = error[:, :, None] * error[:, None, :]
        deviation = (squares.mean(axis=0) - expected) / (squares.std(axis=0) / np.sqrt(num_paths))
        self.assertLess(np.abs(deviation).max(), 4.0)
        radius = linear_stability.contraction(_PROBLEM.features, _PROBLEM.solution, step_size, noise_scale, depth)
        self.assertAlmostEqual(radius, np.abs(np.linalg.eigvals(transfer)).max())
        self.assertLess(radius, 1.0)

    def test_refuses(self):
        with self.assertRaisesRegex(ValueError, "`solution` must have shape"):
            linear_stability.edge(_PROBLEM.features, np.zeros(25))
        with self.assertRaisesRegex(ValueError, "`step_size` must be positive"):
            linear_stability.contraction(_PROBLEM.features, _PROBLEM.solution, 0.0)


if __name__ == "__main__":
    absltest.main()
