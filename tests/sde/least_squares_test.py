"""Tests of the least-squares theory: covariances solve their equations, then agree with simulation."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.sde import brownian, euler_maruyama, least_squares

_SETTING = {"step_size": 0.2, "residual_scale": 0.7, "noise_scale": 0.3}


def _tall(n=60, d=4, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, d)) @ np.diag(np.linspace(0.4, 1.4, d))
    return features, features @ generator.standard_normal(d) + generator.standard_normal(n)


def _relative(measured, expected):
    return np.linalg.norm(measured - expected) / np.linalg.norm(expected)


class CovarianceTest(parameterized.TestCase):
    @parameterized.product(discrete=[False, True], batch_size=[1, 3])
    def test_closed_form_is_the_lyapunov_solver_s(self, discrete, batch_size):
        features, _ = _tall()
        setting = dict(_SETTING, discrete=discrete, batch_size=batch_size)
        closed = least_squares.stationary_covariance(features, **setting)
        np.testing.assert_allclose(closed, least_squares.lyapunov_covariance(features, **setting), rtol=1e-10)

    def test_solves_its_lyapunov_equation_and_the_paper_s_does_not(self):
        features, _ = _tall()
        h, source = least_squares.hessian(features), 0.2 * 0.49 * least_squares.hessian(features) + 0.09 * np.eye(4)
        right, paper = (
            f(features, **_SETTING) for f in (least_squares.stationary_covariance, least_squares.paper_eq15)
        )
        np.testing.assert_allclose(h @ right + right @ h, source, atol=1e-12)
        np.testing.assert_allclose(h @ paper + paper @ h, source - 0.045 * np.eye(4), atol=1e-12)

    def test_without_noise_the_covariance_does_not_know_the_data(self):
        covariance = least_squares.stationary_covariance(_tall()[0], 0.2, 0.7, 0.0)
        np.testing.assert_allclose(covariance, 0.5 * 0.2 * 0.49 * np.eye(4), atol=1e-14)

    def test_discrete_law_tends_to_the_equation_s(self):
        features, _ = _tall()
        gaps = []
        for step in (1e-3, 1e-4):
            pair = [least_squares.stationary_covariance(features, step, 0.7, 0.3, discrete=d) for d in (True, False)]
            gaps.append(_relative(*pair))
        self.assertAlmostEqual(gaps[0] / gaps[1], 10.0, delta=0.3)

    def test_surrogate_steps_have_the_discrete_covariance(self):
        # 4,000 runs, recorded every 20 steps (autocorrelation below 0.85^20): at least 6e4 effective samples, and an
        # error of about sqrt((d + 1) / samples) = 0.8 %.
        features, targets = _tall()
        equation = least_squares.under_parameterized(features, targets, **_SETTING)
        covariance = least_squares.stationary_covariance(features, **_SETTING, discrete=True)
        generator = np.random.default_rng(3)
        solution = least_squares.minimum_norm_solution(features, targets)
        state = solution + generator.standard_normal((4_000, 4)) @ np.linalg.cholesky(covariance).T
        second_moments = []
        for _ in range(15):
            dw = brownian.increments(generator, 20, 0.2, (4_000, equation.noise_dimension))
            state = euler_maruyama.integrate(equation, state, dw, 0.2)
            second_moments.append((state - solution).T @ (state - solution) / len(state))
        measured = np.mean(second_moments, axis=0)
        self.assertLess(_relative(measured, covariance), 0.03)
        self.assertGreater(_relative(measured, least_squares.paper_eq15(features, **_SETTING)), 0.3)

    @parameterized.parameters(1, 4)
    def test_real_sampling_has_the_sampled_covariance(self, batch_size):
        features, targets = _tall(n=12, d=2)
        step, noise = 0.3, 0.3
        expected = least_squares.sampled_covariance(features, targets, step, noise, batch_size)
        generator = np.random.default_rng(4)
        theta = np.tile(least_squares.minimum_norm_solution(features, targets), (10_000, 1))
        solution, second_moments = theta[0], []
        for index in range(300):
            picked = generator.integers(12, size=(len(theta), batch_size))
            x, y = features[picked], targets[picked]
            residual = np.einsum("rbd,rd->rb", x, theta) - y
            gradient = np.einsum("rb,rbd->rd", residual, x) / batch_size
            added = np.sqrt(step) * noise * generator.standard_normal(theta.shape)
            theta = theta - step * gradient + added
            if index >= 100 and index % 20 == 19:
                second_moments.append((theta - solution).T @ (theta - solution) / len(theta))
        self.assertLess(_relative(np.mean(second_moments, axis=0), expected), 0.03)
        surrogate = least_squares.stationary_covariance(
            features, step, np.std(features @ solution - targets), noise, discrete=True, batch_size=batch_size
        )
        if batch_size == 1:
            self.assertGreater(_relative(surrogate, expected), 0.05)

    def test_sampled_covariance_equals_the_surrogate_s_for_homoscedastic_residuals(self):
        # Residuals of one size everywhere, and gamma small enough for multiplicative noise to be of second order.
        generator = np.random.default_rng(0)
        half = generator.standard_normal((500, 3))
        features, targets = np.concatenate([half, half]), np.repeat([0.5, -0.5], 500)
        sampled = least_squares.sampled_covariance(features, targets, 1e-4, 0.1)
        modelled = least_squares.stationary_covariance(features, 1e-4, 0.5, 0.1, discrete=True)
        self.assertLess(_relative(sampled, modelled), 1e-3)

    def test_refuses(self):
        features, targets = _tall()
        limit = 2 / np.linalg.eigvalsh(least_squares.hessian(features))[-1]
        for function in (least_squares.stationary_covariance, least_squares.lyapunov_covariance):
            with self.assertRaisesRegex(ValueError, "`step_size` must be below 2 / lambda_max"):
                function(features, 1.01 * limit, 1.0, 1.0, discrete=True)
            with self.assertRaisesRegex(ValueError, "full column rank"):
                function(features[:3], 0.1, 1.0, 1.0)
        with self.assertRaisesRegex(ValueError, "`step_size` must keep second moments bounded"):
            least_squares.sampled_covariance(features, targets, 0.99 * limit)
        with self.assertRaisesRegex(ValueError, "at least one row"):
            least_squares.stationary_covariance(np.zeros((0, 3)), 0.1, 1.0, 1.0)
        with self.assertRaisesRegex(ValueError, "`noise_scale` must be at least 0"):
            least_squares.stationary_covariance(features, 0.1, 1.0, -1.0)
        with self.assertRaisesRegex(ValueError, "`batch_size` must be an integer of at least 1"):
            least_squares.stationary_covariance(features, 0.1, 1.0, 1.0, batch_size=0)


class OverParametrisedTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(7)
        self.features, self.targets = generator.standard_normal((5, 12)), generator.standard_normal(5)
        self.trace = np.trace(least_squares.hessian(self.features))

    def test_converges_to_the_minimum_norm_interpolator(self):
        step = 1.0 / self.trace
        equation = least_squares.over_parameterized(self.features, self.targets, step)
        dw = brownian.increments(np.random.default_rng(0), 3_000, step, (20, 17))
        final = euler_maruyama.integrate(equation, np.zeros((20, 12)), dw, step)
        solution = np.linalg.pinv(self.features) @ self.targets
        self.assertLess(np.abs(final - solution).max(), 1e-6)

    def test_theorem_1_bounds_the_distance_of_coupled_paths(self):
        step, noise = 1.0 / self.trace, 0.5
        equation = least_squares.over_parameterized(self.features, self.targets, step, [[0.0], [noise]])
        dw = brownian.increments(np.random.default_rng(1), 300, step, (2_000, 1, 17))
        path = euler_maruyama.integrate(equation, np.zeros((2_000, 2, 12)), dw, step, keep_path=True)
        distance = np.sum((path[:, :, 0] - path[:, :, 1]) ** 2, axis=-1)
        residual = np.mean((path[:-1, :, 1] @ self.features.T - self.targets) ** 2, axis=-1)
        integral = np.concatenate([np.zeros((1, 2_000)), step * np.cumsum(residual, axis=0)])
        gap = distance - least_squares.distance_bound(self.features, step, noise, integral)
        errors = gap[1:].std(axis=1) / np.sqrt(2_000)
        self.assertLess(np.max(gap[1:].mean(axis=1) / errors), 4.0)
        # The bound is not vacuous: it is an equality to first order, and a half of it is violated.
        self.assertGreater(np.max((distance[1:3] - 0.5 * (distance - gap)[1:3]).mean(axis=1) / errors[:2]), 4.0)

    def test_bound_refuses_a_large_step(self):
        with self.assertRaisesRegex(ValueError, "`step_size` must be at most 2 / Tr"):
            least_squares.distance_bound(self.features, 2.1 / self.trace, 0.5, 1.0)


if __name__ == "__main__":
    absltest.main()
