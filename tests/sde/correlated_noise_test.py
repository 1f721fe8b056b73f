"""Correlated noise in the paper's equations: against independent noise, simulations, and Lyapunov's equation."""

import numpy as np
import scipy.linalg
from absl.testing import absltest, parameterized

from noisy_sgd.data import regression
from noisy_sgd.sde import correlated_noise, diagonal_linear, least_squares
from noisy_sgd.toy import settings, simulation

PROBLEM = regression.noisy(1, 60, 4, condition_number=20.0)
STEP = 0.4 / np.linalg.eigvalsh(least_squares.hessian(PROBLEM.features))[-1]
SPARSE = regression.sparse(3)


class StationaryCovarianceTest(parameterized.TestCase):
    def test_one_coefficient_is_independent_noise(self):
        arguments = PROBLEM.features, STEP, 0.7, 0.5
        found = correlated_noise.stationary_covariance(*arguments, (2.0,), batch_size=2)
        expected = least_squares.stationary_covariance(*arguments[:3], 1.0, discrete=True, batch_size=2)
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    @parameterized.parameters(0.3, 0.9, 1.0)
    def test_lambda_in_closed_form(self, value):
        found = correlated_noise.stationary_covariance(PROBLEM.features, STEP, 0.0, 0.5, (1.0, -value))
        values, vectors = np.linalg.eigh(least_squares.hessian(PROBLEM.features))
        share = ((1 - value) ** 2 + 2 * value * STEP * values) / (values * (2 - STEP * values))
        np.testing.assert_allclose(found, (vectors * (0.25 * share)) @ vectors.T, rtol=1e-10)

    @parameterized.parameters(((1.0, -0.9),), ((1.0, -0.5, -0.125, 0.3),), ((0.5, 0.5, 0.5),))
    def test_lyapunov_of_the_steps_with_their_past_draws(self, coefficients):
        # The state is theta and the last q draws; its covariance solves Lyapunov's equation, without any closed form.
        curvature, lags = least_squares.hessian(PROBLEM.features), len(coefficients) - 1
        size, scale = len(curvature), np.sqrt(STEP) * 0.5
        matrix = np.zeros(((lags + 1) * size, (lags + 1) * size))
        matrix[:size, :size] = np.eye(size) - STEP * curvature
        driven = np.zeros((len(matrix), size))
        driven[:size] = -scale * coefficients[0] * np.eye(size)
        for lag in range(1, lags + 1):
            block = slice(lag * size, (lag + 1) * size)
            matrix[:size, block] = -scale * coefficients[lag] * np.eye(size)
            if lag == 1:
                driven[block] = np.eye(size)
            else:
                matrix[block, (lag - 1) * size : lag * size] = np.eye(size)
        whole = scipy.linalg.solve_discrete_lyapunov(matrix, driven @ driven.T)
        found = correlated_noise.stationary_covariance(PROBLEM.features, STEP, 0.0, 0.5, coefficients)
        np.testing.assert_allclose(found, whole[:size, :size], rtol=1e-9, atol=1e-12)

    def test_a_simulation(self):
        # 400 runs after 400 steps: a variance has a standard error of 7 %, four of them together 3.5 %.
        coefficients = (1.0, -0.9)
        setting = settings.RunSettings(
            model="least_squares", features=PROBLEM.features, targets=PROBLEM.targets, num_runs=400, step_size=STEP,
            noise_scale=0.5, noise_coefficients=coefficients, batch_size=None, vanishing_noise=False,
            initial=least_squares.minimum_norm_solution(PROBLEM.features, PROBLEM.targets),
        )  # fmt: skip
        trajectory = simulation.simulate(setting, 400, 5, grid=[400])
        expected = correlated_noise.stationary_covariance(PROBLEM.features, STEP, 0.0, 0.5, coefficients)
        white = np.linalg.solve(np.linalg.cholesky(expected), (trajectory.weights - setting.initial).T)
        self.assertAlmostEqual(np.mean(white**2), 1.0, delta=5 * np.sqrt(2 / white.size))
        independent = correlated_noise.stationary_covariance(PROBLEM.features, STEP, 0.0, 0.5, (1.0,))
        self.assertGreater(np.trace(independent), 3 * np.trace(expected))

    def test_beyond_stability(self):
        with self.assertRaisesRegex(ValueError, "`step_size` must be below 2 / lambda_max"):
            correlated_noise.stationary_covariance(PROBLEM.features, 6 * STEP, 1.0, 0.5, (1.0, -0.9))


class DiagonalLinearTest(parameterized.TestCase):
    def runs(self, coefficients, relative_step=0.05, num_runs=12, num_steps=6000, noise_scale=0.5):
        setting = settings.RunSettings(
            model="diagonal_linear", features=SPARSE.features, targets=SPARSE.targets, num_runs=num_runs,
            step_size=relative_step / SPARSE.largest_eigenvalue, noise_scale=noise_scale,
            noise_coefficients=coefficients,
        )  # fmt: skip
        return setting, simulation.simulate(setting, num_steps, 2, grid=range(num_steps + 1))

    def test_alpha_takes_the_variance_of_one_step(self):
        # Small steps: the exact alpha of the final weights is the formula's within 2 %, and not that of another noise.
        setting, trajectory = self.runs((1.0, -0.9), noise_scale=2.0)
        exact = diagonal_linear.effective_alpha_from_weights(trajectory.weights)
        arguments = 0.1, SPARSE.features, setting.step_size[0], 2.0
        integral = trajectory.loss_integral[-1]
        formula = correlated_noise.effective_alpha(*arguments, (1.0, -0.9), integral)
        ratio = np.exp(np.mean(np.log(exact) - np.log(formula)))
        self.assertAlmostEqual(ratio, 1.0, delta=0.02)
        for wrong in ((1.0,), (0.1,), (1.9,)):
            other = correlated_noise.effective_alpha(*arguments, wrong, integral)
            self.assertGreater(abs(np.mean(np.log(exact) - np.log(other))), 0.05)

    @parameterized.parameters(((1.0, -0.9),), ((1.0, -0.5, -0.125),), ((1.0,),))
    def test_the_tilt_takes_the_sum_of_the_coefficients(self, coefficients):
        setting, trajectory = self.runs(coefficients)
        losses = trajectory.loss[:-1]
        variance = correlated_noise.tilt_variance(losses, setting.step_size[0], 0.5, coefficients)
        normalized = trajectory.accumulated_noise / np.sqrt(variance)[:, None]
        # 1,200 values: a standard error of 4 % of the variance.
        self.assertAlmostEqual(np.mean(normalized**2), 1.0, delta=5 * np.sqrt(2 / normalized.size))
        limit = correlated_noise.tilt_variance_limit(
            setting.step_size[0], 0.5, coefficients, trajectory.loss_integral[-1]
        )
        if coefficients == (1.0,):
            np.testing.assert_allclose(variance, limit, rtol=1e-9)
        else:
            # SGD's loss jumps from step to step, which the limit does not know.
            self.assertTrue(np.all(variance > limit))

    def test_the_limit_of_small_steps(self):
        # A loss that decays smoothly over many steps.
        for count, tolerance in ((1000, 0.3), (100_000, 0.003)):
            step = 1.0 / count
            losses = np.exp(-10 * np.arange(count) / count)
            for coefficients in ((1.0, -0.5), (1.0, -0.5, -0.125), (1.0, -0.9)):
                found = correlated_noise.tilt_variance(losses, step, 0.5, coefficients)
                limit = correlated_noise.tilt_variance_limit(step, 0.5, coefficients, step * losses.sum())
                self.assertAlmostEqual(found / limit, 1.0, delta=tolerance)

    def test_lambda_1_telescopes(self):
        losses = np.exp(-0.01 * np.arange(2000))
        found = correlated_noise.tilt_variance(losses, 0.1, 0.5, (1.0, -1.0))
        roots = np.append(np.sqrt(losses), 0.0)
        np.testing.assert_allclose(found, 0.05**2 * np.sum(np.diff(roots) ** 2), rtol=1e-12)

    def test_bad_arguments(self):
        for coefficients in ((), 1.0, (np.nan,)):
            with self.assertRaisesRegex(ValueError, "`coefficients` must be finite"):
                correlated_noise.tilt_variance([1.0], 0.1, 0.5, coefficients)


if __name__ == "__main__":
    absltest.main()
