"""Tests of the diagonal linear network: exact identities of eq. (18), then eqs. (19), (21) and Propositions 1 to 3."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.sde import brownian, diagonal_linear, euler_maruyama, least_squares, mirror_map


def _problem(seed=0, n=8, d=20):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, d))
    beta = np.zeros(d)
    beta[:3] = [1.0, -1.2, 0.8]
    return features, features @ beta


def _largest_eigenvalue(features):
    return np.linalg.eigvalsh(least_squares.hessian(features))[-1]


def _descend(features, targets, step_size, noise_scale, num_steps, runs=3, alpha=0.1, seed=0, shared=True):
    """Eq. (18) as written; also what the identities speak of."""
    generator = np.random.default_rng(seed)
    n, d = features.shape
    weights = np.full((runs, 2, d), alpha)
    log_product, noise, excess, integral = np.zeros((4, runs, d))
    for _ in range(num_steps):
        normals = generator.standard_normal((runs, d) if shared else (runs, 2, d))
        size = np.sqrt(diagonal_linear.loss(diagonal_linear.predictor(weights), features, targets))
        indices = generator.integers(n, size=(runs, 1))
        a = diagonal_linear.relative_step(weights, features, targets, step_size, noise_scale, indices, normals)
        weights = diagonal_linear.update(weights, a)
        if shared:
            log_product += np.log(np.abs(1 - a**2))
            noise += step_size * noise_scale * size[:, None] * normals
            excess += 0.5 * np.log(np.abs((1 + a) / (1 - a))) - a
        integral += step_size * size[:, None] ** 2
    return weights, log_product, noise, excess, integral[:, 0]


class DiscreteIdentityTest(parameterized.TestCase):
    @parameterized.parameters((0.0, 1.3), (0.5, 1.3), (0.5, 20.0))
    def test_product_of_weights(self, noise_scale, slowness):
        features, targets = _problem()
        step = 1 / (slowness * _largest_eigenvalue(features))
        weights, log_product, *_ = _descend(features, targets, step, noise_scale, 400)
        measured = np.log(diagonal_linear.effective_alpha_from_weights(weights) ** 2)
        np.testing.assert_allclose(measured, 2 * np.log(0.1) + log_product, rtol=1e-10, atol=1e-10)

    @parameterized.parameters(1.3, 5.0)
    def test_proposition_2_is_exact_with_the_discrete_tilt(self, slowness):
        features, targets = _problem(seed=2)
        step = 1 / (slowness * _largest_eigenvalue(features))
        weights, _, noise, excess, _ = _descend(features, targets, step, 0.5, int(3000 * slowness), runs=4)
        tilt = diagonal_linear.orthogonal_part(features, noise - 0.5 * excess)
        np.testing.assert_allclose(tilt, diagonal_linear.discrete_tilt(weights, features), atol=1e-8)
        beta = diagonal_linear.predictor(weights)
        alphas = diagonal_linear.effective_alpha_from_weights(weights)
        for run in range(4):
            limit = mirror_map.minimizer(features, targets, alphas[run], tilt[run])
            self.assertLess(np.sum((beta[run] - limit) ** 2), 1e-12)

    def test_update_is_the_gradient_step(self):
        features, targets = _problem()
        weights = np.random.default_rng(0).standard_normal((2, 2, 20))
        indices, normals = np.array([[3], [5]]), np.random.default_rng(1).standard_normal((2, 20))
        a = diagonal_linear.relative_step(weights, features, targets, [0.1, 0.2], [0.5, 0.0], indices, normals)
        stepped = diagonal_linear.update(weights, a)
        for run, (gamma, sigma) in enumerate(((0.1, 0.5), (0.2, 0.0))):
            plus, minus = weights[run]
            x, y = features[indices[run, 0]], targets[indices[run, 0]]
            slope = (x @ (plus**2 - minus**2) - y) * x
            size = np.sqrt(np.sum((features @ (plus**2 - minus**2) - targets) ** 2) / (4 * 8))
            noise = gamma * 2 * sigma * size * normals[run]
            np.testing.assert_allclose(stepped[run, 0], plus - gamma * slope * plus + noise * plus, rtol=1e-12)
            np.testing.assert_allclose(stepped[run, 1], minus + gamma * slope * minus - noise * minus, rtol=1e-12)

    def test_the_gradient_is_the_loss_s(self):
        features, targets = _problem()
        weights, width = np.random.default_rng(0).standard_normal((1, 2, 20)), 1e-6
        a = diagonal_linear.relative_step(weights, features, targets, 1.0, 0.0, None, np.zeros((1, 20)))
        gradient = (weights - diagonal_linear.update(weights, a))[0]
        for position in ((0, 0), (1, 7)):
            bump = np.zeros((1, 2, 20))
            bump[(0, *position)] = width
            ends = [
                diagonal_linear.loss(diagonal_linear.predictor(weights + s * bump), features, targets) for s in (1, -1)
            ]
            self.assertAlmostEqual((ends[0] - ends[1])[0] / (2 * width), gradient[position], delta=1e-6)

    def test_independent_draws_enter_separately(self):
        features, targets = _problem()
        weights = np.random.default_rng(0).standard_normal((2, 2, 20))
        normals = np.random.default_rng(1).standard_normal((2, 20))
        arguments = (weights, features, targets, 0.1, 0.5, np.array([[0], [1]]))
        shared = diagonal_linear.update(weights, diagonal_linear.relative_step(*arguments, normals))
        pair = diagonal_linear.relative_step(*arguments, np.stack([normals, -normals], axis=1))
        np.testing.assert_allclose(diagonal_linear.update(weights, pair)[:, 0], shared[:, 0], rtol=1e-12)
        self.assertGreater(np.abs(diagonal_linear.update(weights, pair)[:, 1] - shared[:, 1]).max(), 1e-3)


class EffectiveAlphaTest(parameterized.TestCase):
    @parameterized.parameters(0.0, 1.0)
    def test_formula_21_at_a_small_step(self, noise_scale):
        features, targets = _problem(n=20, d=40)
        step = 0.02 / _largest_eigenvalue(features)
        weights, *_, integral = _descend(features, targets, step, noise_scale, 8_000, runs=6)
        exact = np.log(diagonal_linear.effective_alpha_from_weights(weights) / 0.1)
        formula = np.log(diagonal_linear.effective_alpha(0.1, features, step, noise_scale, integral) / 0.1)
        # 240 ratios; the median's spread is below 0.01.
        self.assertAlmostEqual(np.median(exact / formula), 1.0, delta=0.05)
        if noise_scale:
            without = np.log(diagonal_linear.effective_alpha(0.1, features, step, 0.0, integral) / 0.1)
            self.assertGreater(np.median(exact / without), 1.5)

    def test_batch_size_divides_the_sampling_s_share_only(self):
        features, _ = _problem()
        log = np.log(diagonal_linear.effective_alpha(1.0, features, 0.1, 0.5, [1.0, 2.0], batch_size=4))
        diagonal = np.mean(features**2, axis=0)
        np.testing.assert_allclose(log, -0.2 * np.array([[1.0], [2.0]]) * (diagonal / 4 + 0.25), rtol=1e-12)

    def test_proposition_1_holds_along_the_equation(self):
        # On a fine grid the Euler path obeys |w+ w-| = alpha_t^2 with eq. (21)'s alpha_t; half the noise term fails.
        features, targets = _problem()
        gamma, sigma, step = 0.5 / _largest_eigenvalue(features), 0.7, 2e-4
        equation = diagonal_linear.equation(features, targets, gamma, sigma)
        weights, integral = np.full((50, 2, 20), 0.3), np.zeros(50)
        generator = np.random.default_rng(0)
        for _ in range(20):
            dw = brownian.increments(generator, 100, step, (50, equation.noise_dimension))
            path = euler_maruyama.integrate(equation, weights, dw, step, keep_path=True)
            losses = diagonal_linear.loss(diagonal_linear.predictor(path[:-1]), features, targets)
            weights, integral = path[-1], integral + step * losses.sum(axis=0)
        exact = np.log(diagonal_linear.effective_alpha_from_weights(weights) / 0.3)
        formula = np.log(diagonal_linear.effective_alpha(0.3, features, gamma, sigma, integral) / 0.3)
        self.assertAlmostEqual(np.sum(exact) / np.sum(formula), 1.0, delta=0.02)

    def test_independent_noise_keeps_a_random_factor(self):
        # Var(ln w+ w- + deterministic part) = 8 gamma sigma^2 int L: 200 runs of 20 coordinates.
        features, targets = _problem()
        gamma, sigma, step = 0.5 / _largest_eigenvalue(features), 0.7, 1e-3
        equation = diagonal_linear.equation(features, targets, gamma, sigma, shared_noise=False)
        self.assertEqual(equation.noise_dimension, 8 + 40)
        dw = brownian.increments(np.random.default_rng(0), 300, step, (200, 48))
        path = euler_maruyama.integrate(equation, np.full((200, 2, 20), 0.3), dw, step, keep_path=True)
        losses = diagonal_linear.loss(diagonal_linear.predictor(path[:-1]), features, targets)
        integral = step * losses.sum(axis=0)
        alphas = diagonal_linear.effective_alpha(0.3, features, gamma, sigma, integral)
        deviation = np.log(diagonal_linear.effective_alpha_from_weights(path[-1]) ** 2) - 2 * np.log(alphas)
        normalized = deviation / np.sqrt(8 * gamma * sigma**2 * integral)[:, None]
        self.assertAlmostEqual(normalized.std(), 1.0, delta=0.06)


class PropositionTest(parameterized.TestCase):
    def test_eulers_step_is_eq_18_for_gradient_descent(self):
        features, targets = _problem()
        weights = np.random.default_rng(0).standard_normal((3, 2, 20))
        normals = np.random.default_rng(1).standard_normal((3, 20))
        gamma, sigma = 0.1, 0.5
        equation = diagonal_linear.equation(features, targets, gamma, sigma)
        increment = np.concatenate([np.zeros((3, 8)), np.sqrt(gamma) * normals], axis=1)
        stepped = euler_maruyama.integrate(equation, weights, increment[None], gamma)
        a = diagonal_linear.relative_step(weights, features, targets, gamma, sigma, None, normals)
        np.testing.assert_allclose(stepped, diagonal_linear.update(weights, a), rtol=1e-12)

    def test_gradient_flow_from_the_effective_weights_reaches_the_tilted_minimizer(self):
        features, targets = _problem()
        tilt = 0.2 * np.random.default_rng(3).standard_normal(20)
        weights = diagonal_linear.effective_weights(0.3, tilt)[None]
        np.testing.assert_allclose(
            diagonal_linear.predictor(weights[0]), diagonal_linear.effective_initialization(0.3, tilt), rtol=1e-12
        )
        step = 0.02 / _largest_eigenvalue(features)
        for _ in range(20_000):
            a = diagonal_linear.relative_step(weights, features, targets, step, 0.0, None, np.zeros((1, 20)))
            weights = diagonal_linear.update(weights, a)
        limit = mirror_map.minimizer(features, targets, 0.3, tilt)
        np.testing.assert_allclose(diagonal_linear.predictor(weights)[0], limit, atol=0.02)
        self.assertGreater(np.abs(limit - mirror_map.minimizer(features, targets, 0.3)).max(), 0.1)

    @parameterized.parameters(0.1, 0.5)
    def test_proposition_3(self, alpha):
        features, targets = _problem()
        for seed in range(5):
            tilt = diagonal_linear.orthogonal_part(features, np.random.default_rng(seed).standard_normal(20))
            pair = [mirror_map.minimizer(features, targets, alpha, t) for t in (tilt, None)]
            bound = diagonal_linear.distance_bound(*pair, alpha, tilt)
            self.assertLessEqual(np.linalg.norm(pair[0] - pair[1]), bound)

    def test_orthogonal_part_leaves_the_span(self):
        features, _ = _problem()
        rest = diagonal_linear.orthogonal_part(features, np.random.default_rng(0).standard_normal((3, 20)))
        np.testing.assert_allclose(rest @ features.T, 0.0, atol=1e-12)
        np.testing.assert_allclose(diagonal_linear.orthogonal_part(features, rest), rest, atol=1e-13)

    def test_refuses(self):
        features, targets = _problem()
        with self.assertRaisesRegex(ValueError, "`alpha` must be positive"):
            diagonal_linear.effective_alpha(-0.1, features, 0.1, 0.5, 1.0)
        with self.assertRaisesRegex(ValueError, "`loss_integral` must be at least 0"):
            diagonal_linear.effective_alpha(0.1, features, 0.1, 0.5, -1.0)
        with self.assertRaisesRegex(ValueError, "at least one row"):
            diagonal_linear.effective_alpha(0.1, features[:0], 0.1, 0.5, 1.0)
        with self.assertRaisesRegex(ValueError, "`step_size` must be positive"):
            diagonal_linear.equation(features, targets, 0.0)


if __name__ == "__main__":
    absltest.main()
