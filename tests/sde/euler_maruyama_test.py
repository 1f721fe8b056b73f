"""Integrator orders as slopes on one coarsened Brownian path, each with its bootstrap interval over paths."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.sde import brownian, diagonal_linear, euler_maruyama, least_squares

_FACTORS = (4, 8, 16, 32)


def _slope(errors, steps):
    """Order of the root mean square error [factor, path], and the half width of its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)

    def fit(sample):
        return np.polyfit(np.log(steps), 0.5 * np.log(np.mean(sample**2, axis=1)), 1)[0]

    resampled = [fit(errors[:, generator.integers(errors.shape[1], size=errors.shape[1])]) for _ in range(200)]
    return fit(errors), 0.5 * np.ptp(np.quantile(resampled, [0.025, 0.975]))


def _errors(equation, initial, num_steps, step_size, paths, additive_method=False, seed=0):
    shape = (paths, equation.noise_dimension)
    fine, integrals = brownian.increments_with_integrals(np.random.default_rng(seed), num_steps, step_size, shape)
    initial = np.broadcast_to(initial, (paths, *np.shape(initial)))

    def solve(factor):
        dw, area = brownian.coarsen_with_integrals(fine, integrals, step_size, factor)
        if additive_method:
            return euler_maruyama.integrate_additive(equation, initial, dw, area, factor * step_size)
        return euler_maruyama.integrate(equation, initial, dw, factor * step_size)

    reference = solve(1).reshape(paths, -1)
    return np.stack([np.linalg.norm(solve(f).reshape(paths, -1) - reference, axis=1) for f in _FACTORS])


class OrderTest(parameterized.TestCase):
    def _check(self, order, errors, step_size):
        slope, half_width = _slope(errors, step_size * np.array(_FACTORS))
        self.assertLess(half_width, 0.15)
        self.assertAlmostEqual(slope, order, delta=0.15)

    @parameterized.parameters((False, 1.0), (True, 1.5))
    def test_additive_noise(self, additive_method, order):
        # A double well, whose drift is not linear, in one dimension.
        equation = euler_maruyama.Equation(
            drift=lambda x: x - x**3, diffusion=lambda x, dw: 0.7 * dw, noise_dimension=1, additive=True
        )
        self._check(order, _errors(equation, np.array([0.5]), 2048, 1 / 2048, 400, additive_method), 1 / 2048)

    @parameterized.parameters((False, 1.0), (True, 2.0))
    def test_equation_14(self, additive_method, order):
        # From the minimum, where no deterministic error hides the noise's. SRA1's order 3/2 comes from the drift's
        # second derivative; for a linear drift the next term decides, and the order is 2.
        generator = np.random.default_rng(0)
        features, targets = generator.standard_normal((12, 3)), generator.standard_normal(12)
        equation = least_squares.under_parameterized(features, targets, 0.1, 1.0, 0.5)
        minimum = least_squares.minimum_norm_solution(features, targets)
        self._check(order, _errors(equation, minimum, 1024, 1 / 1024, 100, additive_method), 1 / 1024)

    def test_equation_16(self):
        generator = np.random.default_rng(0)
        features, targets = generator.standard_normal((4, 8)), generator.standard_normal(4)
        equation = least_squares.over_parameterized(features, targets, 0.1, 0.5)
        self._check(0.5, _errors(equation, np.zeros(8), 1024, 1 / 2048, 200), 1 / 2048)

    def test_equation_19(self):
        # gamma = 0.2, where the noise dominates the error; at gamma of 0.005 the slope would read 1.
        generator = np.random.default_rng(0)
        features = generator.standard_normal((6, 10))
        equation = diagonal_linear.equation(features, features[:, 0], 0.2, 0.5)
        self._check(0.5, _errors(equation, np.full((2, 10), 0.4), 1024, 1 / 2048, 200), 1 / 2048)

    def test_geometric_brownian_motion_against_its_solution(self):
        equation = euler_maruyama.Equation(
            drift=lambda x: 0.3 * x, diffusion=lambda x, dw: 0.8 * x * dw, noise_dimension=1
        )
        fine = brownian.increments(np.random.default_rng(0), 1024, 1 / 1024, (500, 1))
        exact = np.exp(0.3 - 0.32 + 0.8 * fine.sum(axis=0))
        errors = [
            np.abs(euler_maruyama.integrate(equation, np.ones((500, 1)), brownian.coarsen(fine, f), f / 1024) - exact)
            for f in _FACTORS
        ]
        self._check(0.5, np.stack(errors)[..., 0], 1 / 1024)

    def test_path_starts_at_the_initial_state_and_ends_at_the_last(self):
        equation = euler_maruyama.Equation(drift=lambda x: -x, diffusion=lambda x, dw: 0 * dw, noise_dimension=2)
        path = euler_maruyama.integrate(equation, np.ones((3, 2)), np.zeros((5, 3, 2)), 0.1, keep_path=True)
        np.testing.assert_allclose(path, np.broadcast_to(0.9 ** np.arange(6)[:, None, None], (6, 3, 2)), rtol=1e-14)

    def test_refuses(self):
        equation = euler_maruyama.Equation(drift=lambda x: x, diffusion=lambda x, dw: x * dw, noise_dimension=2)
        with self.assertRaisesRegex(ValueError, "`equation` must have additive noise"):
            euler_maruyama.integrate_additive(equation, np.ones(2), np.zeros((4, 2)), np.zeros((4, 2)), 0.1)
        with self.assertRaisesRegex(ValueError, "`increments` must have shape"):
            euler_maruyama.integrate(equation, np.ones(2), np.zeros((4, 3)), 0.1)
        with self.assertRaisesRegex(ValueError, "`step_size` must be positive"):
            euler_maruyama.integrate(equation, np.ones(2), np.zeros((4, 2)), -0.1)


if __name__ == "__main__":
    absltest.main()
