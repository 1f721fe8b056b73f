"""Tests of the hyperbolic entropy: identities of the mirror map, then the minimizer by its optimality conditions."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.sde import mirror_map


def _problem(seed=0, n=40, d=100, nonzeros=5, norm=5.61):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, d))
    beta = np.zeros(d)
    beta[:nonzeros] = generator.standard_normal(nonzeros)
    beta *= np.sqrt(norm / np.sum(beta**2))
    return features, features @ beta, beta


class MirrorMapTest(parameterized.TestCase):
    @parameterized.parameters(1e-4, 0.1, 3.0)
    def test_inverse_inverts_gradient(self, alpha):
        beta = np.concatenate([np.linspace(-3, 3, 31), [1e-9, -1e-9]])
        np.testing.assert_allclose(
            mirror_map.inverse(mirror_map.gradient(beta, alpha), alpha), beta, rtol=1e-12, atol=1e-20
        )

    def test_gradient_and_hessian_are_the_potential_s_derivatives(self):
        beta, alpha, width = np.array([0.7, -0.2, 0.03]), np.array([0.1, 0.5, 0.3]), 1e-5
        for index, unit in enumerate(np.eye(3)):
            ahead, behind = beta + width * unit, beta - width * unit
            slope = (mirror_map.potential(ahead, alpha) - mirror_map.potential(behind, alpha)) / (2 * width)
            self.assertAlmostEqual(slope, mirror_map.gradient(beta, alpha)[index], places=8)
            bend = (mirror_map.gradient(ahead, alpha) - mirror_map.gradient(behind, alpha))[index] / (2 * width)
            self.assertAlmostEqual(bend, mirror_map.hessian_diagonal(beta, alpha)[index], places=6)

    def test_gradient_vanishes_at_the_initialization(self):
        np.testing.assert_array_equal(mirror_map.gradient(np.zeros(4), 0.1), 0.0)

    def test_bregman_divergence_is_a_divergence(self):
        generator = np.random.default_rng(1)
        first, second, alpha = *generator.standard_normal((2, 50, 6)), np.full(6, 0.2)
        self.assertTrue((mirror_map.bregman_divergence(first, second, alpha) > 0).all())
        np.testing.assert_allclose(mirror_map.bregman_divergence(first, first, alpha), 0.0, atol=1e-15)

    def test_three_point_identity(self):
        x, y, z = np.random.default_rng(2).standard_normal((3, 7))
        left = sum(mirror_map.bregman_divergence(*pair, 0.3) for pair in ((x, y), (y, z)))
        inner = np.dot(x - y, mirror_map.gradient(z, 0.3) - mirror_map.gradient(y, 0.3))
        self.assertAlmostEqual(left - mirror_map.bregman_divergence(x, z, 0.3), inner, places=12)


class MinimizerTest(parameterized.TestCase):
    @parameterized.product(alpha=[1e-4, 1e-2, 0.1, 1.0, 10.0], tilted=[False, True])
    def test_satisfies_its_optimality_conditions(self, alpha, tilted):
        features, targets, _ = _problem()
        tilt = np.random.default_rng(5).standard_normal(100) * 0.3 if tilted else None
        beta = mirror_map.minimizer(features, targets, alpha, tilt)
        self.assertLess(np.linalg.norm(features @ beta - targets), 1e-10 * np.linalg.norm(targets))
        dual = mirror_map.gradient(beta, alpha) - (0.0 if tilt is None else tilt)
        outside = dual - features.T @ np.linalg.lstsq(features.T, dual, rcond=None)[0]
        self.assertLess(np.linalg.norm(outside), 1e-9)

    def test_no_feasible_neighbour_is_better(self):
        features, targets, _ = _problem(n=5, d=12)
        tilt = np.random.default_rng(5).standard_normal(12) * 0.3
        beta = mirror_map.minimizer(features, targets, 0.1, tilt)
        kernel = np.linalg.svd(features)[2][5:]
        best = mirror_map.potential(beta, 0.1) - tilt @ beta
        for direction in np.random.default_rng(6).standard_normal((40, 7)) @ kernel:
            moved = beta + 1e-3 * direction
            self.assertGreater(mirror_map.potential(moved, 0.1) - tilt @ moved, best)

    def test_minimizes_the_bregman_divergence_from_the_effective_initialization(self):
        features, targets, _ = _problem(n=5, d=12)
        tilt = np.random.default_rng(5).standard_normal(12) * 0.3
        beta = mirror_map.minimizer(features, targets, 0.1, tilt)
        start = mirror_map.inverse(tilt, 0.1)
        best = mirror_map.bregman_divergence(beta, start, 0.1)
        for direction in np.random.default_rng(6).standard_normal((40, 7)) @ np.linalg.svd(features)[2][5:]:
            self.assertGreater(mirror_map.bregman_divergence(beta + 1e-3 * direction, start, 0.1), best)

    def test_large_alpha_gives_the_smallest_l2_norm(self):
        features, targets, _ = _problem()
        ridge = np.linalg.pinv(features) @ targets
        np.testing.assert_allclose(mirror_map.minimizer(features, targets, 30.0), ridge, atol=1e-5)

    def test_small_alpha_recovers_the_sparse_vector(self):
        features, targets, beta = _problem(seed=3)
        errors = [np.sum((mirror_map.minimizer(features, targets, alpha) - beta) ** 2) for alpha in (0.3, 0.03, 1e-4)]
        self.assertGreater(errors[0], errors[1])
        self.assertLess(errors[2], 1e-3)

    def test_a_tilt_in_the_span_of_the_examples_changes_nothing(self):
        features, targets, _ = _problem()
        tilt = features.T @ np.random.default_rng(4).standard_normal(40)
        np.testing.assert_allclose(
            mirror_map.minimizer(features, targets, 0.1, tilt), mirror_map.minimizer(features, targets, 0.1), atol=1e-9
        )

    def test_repeated_examples_and_alpha_a_vector(self):
        features, targets, _ = _problem()
        twice = mirror_map.minimizer(np.tile(features, (2, 1)), np.tile(targets, 2), np.full(100, 0.1))
        np.testing.assert_allclose(twice, mirror_map.minimizer(features, targets, 0.1), atol=1e-10)

    def test_alpha_uneven_over_many_orders_of_magnitude(self):
        features, targets, _ = _problem()
        alpha = 10.0 ** np.random.default_rng(8).uniform(-6, 0, 100)
        beta = mirror_map.minimizer(features, targets, alpha)
        np.testing.assert_allclose(features @ beta, targets, atol=1e-9)

    def test_as_many_examples_as_coordinates_leave_no_choice(self):
        np.testing.assert_allclose(mirror_map.minimizer(np.eye(2), np.ones(2), 0.1, np.ones(2)), [1.0, 1.0], atol=1e-12)
        np.testing.assert_array_equal(mirror_map.minimizer(np.eye(2), np.zeros(2), 0.1), [0.0, 0.0])

    @parameterized.parameters(
        (np.zeros((0, 3)), np.zeros(0), 0.1, None, "at least one row"),
        (np.ones((2, 3)), np.zeros(3), 0.1, None, "`targets` must have one entry per row"),
        (np.eye(2), np.ones(2), -0.1, None, "`alpha` must be positive"),
        (np.eye(2), np.ones(2), [0.1, 0.1, 0.1], None, "`alpha` must be a scalar or have shape"),
        (np.eye(2), np.ones(2), 0.1, np.zeros(3), "`tilt` must be a finite vector of shape"),
        (np.ones((2, 1)), np.array([1.0, 2.0]), 0.1, None, "`targets` must be interpolable"),
    )
    def test_refuses(self, features, targets, alpha, tilt, message):
        with self.assertRaisesRegex(ValueError, message):
            mirror_map.minimizer(features, targets, alpha, tilt)


if __name__ == "__main__":
    absltest.main()
