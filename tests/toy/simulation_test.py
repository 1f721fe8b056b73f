"""Tests of the fast simulation: the reference map, the ordinary optimizer's path, blocks, divergence, convergence."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.mechanisms import gaussian
from noisy_sgd.sde import diagonal_linear, least_squares, mirror_map
from noisy_sgd.toy import draws, settings, simulation, step_by_step, trajectories

_PROBLEM = regression.sparse(0, num_examples=8, dimension=20, num_nonzeros=3)


def _setting(**changes):
    values = dict(
        model="diagonal_linear",
        features=_PROBLEM.features,
        targets=_PROBLEM.targets,
        num_runs=4,
        step_size=_PROBLEM.paper_step_size * np.array([1.0, 0.5, 0.2, 0.05]),
        noise_scale=np.array([0.0, 0.2, 0.3, 0.5]),
    )
    if changes.get("model") == "least_squares":
        values["initial"] = 0.0
    return settings.RunSettings(**(values | changes))


@dataclasses.dataclass(frozen=True)
class _OptimizerDraws:
    """The draws that `NoisySGD` makes, in the fast path's layout and sign."""

    setting: settings.RunSettings
    seed: int
    steps: int = 32

    def __call__(self, block):
        setting, source = self.setting, self.setting.source(self.seed)
        key = tf.constant(keys.derive(self.seed, "noise"), tf.int64)
        steps = range(block * self.steps, (block + 1) * self.steps)
        mirrored = setting.model == "diagonal_linear" and setting.shared_noise
        shape = (setting.num_runs, setting.dimension) if mirrored else setting.weights_shape
        normals = -np.stack([gaussian.flat_normal([shape], tf.float64, key, step)[0].numpy() for step in steps])
        if normals.ndim == 4:
            # For separate draws the optimizer adds +Z w to both gradients; the fast path gives the minus weights a
            # minus.
            normals = np.swapaxes(normals, 1, 2) * np.array([1.0, -1.0]).reshape(2, 1, 1)
        indices = None
        if setting.batch_size is not None:
            indices = np.stack([source(step // source.steps).indices[step % source.steps] for step in steps])
        return draws.Block(indices=indices, normals=normals)


class EqualityTest(parameterized.TestCase):
    @parameterized.parameters(None, 1, 3)
    def test_is_eq_18(self, batch_size):
        setting = _setting(batch_size=batch_size)
        block, weights = setting.source(0)(0), setting.initial
        noise, integral = np.zeros((4, 20)), np.zeros(4)
        for step in range(60):
            losses = diagonal_linear.loss(setting.predictor(weights), setting.features, setting.targets)
            integral += setting.step_size * losses
            scale = setting.step_size * setting.noise_scale * np.sqrt(losses)
            noise += scale[:, None] * block.normals[step]
            weights = diagonal_linear.update(
                weights,
                diagonal_linear.relative_step(
                    weights,
                    setting.features,
                    setting.targets,
                    setting.step_size,
                    setting.noise_scale,
                    None if batch_size is None else block.indices[step],
                    block.normals[step],
                ),
            )
        trajectory = simulation.simulate(setting, 60, 0, reference=_PROBLEM.solution)
        np.testing.assert_allclose(trajectory.weights, weights, rtol=1e-12)
        np.testing.assert_allclose(trajectory.loss_integral[-1], integral, rtol=1e-12)
        np.testing.assert_allclose(trajectory.accumulated_noise, noise, rtol=1e-11, atol=1e-15)
        beta = setting.predictor(weights)
        np.testing.assert_allclose(
            trajectory.squared_distance[-1], np.sum((beta - _PROBLEM.solution) ** 2, axis=1), rtol=1e-11
        )
        np.testing.assert_allclose(
            trajectory.loss[-1], diagonal_linear.loss(beta, setting.features, setting.targets), rtol=1e-10
        )

    @parameterized.parameters(
        dict(),
        dict(batch_size=None),
        dict(batch_size=3),
        dict(shared_noise=False),
        dict(noise_scale=0.0),
        dict(noise_coefficients=(1.0, -0.9)),
        dict(noise_coefficients=(1.0, -0.5, -0.2), shared_noise=False),
        dict(model="least_squares", noise_coefficients=(1.0, -0.9), vanishing_noise=False),
        dict(model="least_squares"),
        dict(model="least_squares", batch_size=None, vanishing_noise=False),
    )
    def test_equals_the_ordinary_optimizer(self, **changes):
        setting = _setting(**changes)
        fast = simulation.simulate(
            setting, 100, 7, reference=_PROBLEM.solution, source=_OptimizerDraws(setting=setting, seed=7)
        )
        slow = step_by_step.simulate(setting, 100, 7, reference=_PROBLEM.solution)
        np.testing.assert_allclose(fast.weights, slow.weights, rtol=1e-12, atol=1e-12)
        for name in ("loss", "squared_distance", "loss_integral"):
            np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-10, atol=1e-12)
        self.assertGreater(np.nanmax(np.abs(fast.weights - setting.initial)), 0.1)

    def test_every_run_may_have_its_own_noise_coefficients(self):
        coefficients = np.array([[1.0, 0.0], [1.0, -0.5], [1.0, -0.9], [2.0, 0.0]])
        together = simulation.simulate(_setting(noise_coefficients=coefficients), 600, 3)
        independent = simulation.simulate(_setting(), 600, 3)
        np.testing.assert_array_equal(together.weights[0], independent.weights[0])
        for run in (1, 2):
            alone = simulation.simulate(_setting(noise_coefficients=coefficients[run]), 600, 3)
            np.testing.assert_array_equal(together.weights[run], alone.weights[run])
            self.assertGreater(np.abs(together.weights[run] - independent.weights[run]).max(), 1e-3)
        doubled = simulation.simulate(_setting(noise_scale=2 * _setting().noise_scale), 600, 3)
        np.testing.assert_allclose(together.weights[3], doubled.weights[3], rtol=1e-9)
        with self.assertRaisesRegex(ValueError, "`setting` must have noise coefficients"):
            step_by_step.simulate(_setting(noise_coefficients=coefficients), 10, 3)
        for wrong in ((), 1.0, (np.nan,), np.ones((3, 2))):
            with self.assertRaisesRegex(ValueError, "`noise_coefficients` must be finite"):
                _setting(noise_coefficients=wrong)

    @parameterized.product(depth=[2, 3, 4], batch_size=[None, 3])
    def test_depth_is_the_gradient_through_the_powers(self, depth, batch_size):
        setting = _setting(depth=depth, batch_size=batch_size, initial=0.4)
        block, weights = setting.source(0)(0), tf.Variable(setting.initial)
        for step in range(30):
            indices = np.arange(8)[None] if batch_size is None else block.indices[step]
            with tf.GradientTape() as tape:
                powers = weights**depth
                beta = powers[:, 0] - powers[:, 1]
                residual = beta @ setting.features.T - setting.targets
                picked = residual if batch_size is None else tf.gather(residual, indices, batch_dims=1)
                # The noise is added to the gradient with respect to beta, and reaches the weights as that does.
                size = tf.stop_gradient(tf.sqrt(tf.reduce_mean(residual**2, axis=1)))
                added = setting.noise_scale * size * tf.reduce_sum(0.5 * beta * block.normals[step], axis=1)
                objective = tf.reduce_sum(0.25 * tf.reduce_mean(picked**2, axis=1) - added)
            weights.assign_sub(setting.step_size[:, None, None] * tape.gradient(objective, weights))
        trajectory = simulation.simulate(setting, 30, 0)
        np.testing.assert_allclose(trajectory.weights, weights.numpy(), rtol=1e-10)
        self.assertGreater(np.abs(trajectory.weights - 0.4).max(), 0.05)

    def test_refuses_depths(self):
        for changes in (dict(depth=1), dict(depth=3, model="least_squares")):
            with self.assertRaisesRegex(ValueError, "Received: depth"):
                _setting(**changes)
        with self.assertRaisesRegex(ValueError, "Received: depth=3"):
            step_by_step.simulate(_setting(depth=3), 1, 0)

    def test_runs_do_not_see_each_other(self):
        setting = _setting()
        whole = simulation.simulate(setting, 80, 0)
        block = setting.source(0)(0)
        alone = _setting(num_runs=1, step_size=setting.step_size[2], noise_scale=setting.noise_scale[2])
        part = draws.Block(indices=block.indices[:, 2:3], normals=block.normals[:, 2:3])
        run = simulation.simulate(alone, 80, 0, source=_Fixed(part, setting.source(0).steps))
        np.testing.assert_allclose(run.weights[0], whole.weights[2], rtol=1e-12)

    def test_is_a_function_of_the_seed_not_of_the_threads(self):
        setting = _setting()
        first, again = (simulation.simulate(setting, 1500, 3) for _ in range(2))
        np.testing.assert_array_equal(first.weights, again.weights)
        self.assertGreater(np.abs(simulation.simulate(setting, 1500, 4).weights - first.weights)[1:].max(), 1e-6)

    def test_recording_does_not_change_the_path(self):
        dense = simulation.simulate(_setting(), 300, 3, grid=np.arange(301))
        sparse = simulation.simulate(_setting(), 300, 3, grid=[300])
        np.testing.assert_array_equal(dense.weights, sparse.weights)
        np.testing.assert_allclose(dense.loss_integral[-1], sparse.loss_integral[0], rtol=1e-12)
        manual = np.cumsum(dense.loss[:-1], axis=0) * _setting().step_size
        np.testing.assert_allclose(dense.loss_integral[1:], manual, rtol=1e-11)


@dataclasses.dataclass(frozen=True)
class _Fixed:
    block: draws.Block
    steps: int

    def __call__(self, number):
        return self.block


class DivergenceTest(absltest.TestCase):
    def test_ends_one_run_and_not_the_others(self):
        sizes = _PROBLEM.paper_step_size * np.array([0.1, 8.0, 0.1])
        setting = _setting(num_runs=3, step_size=sizes, noise_scale=0.3)
        trajectory = simulation.simulate(setting, 2000, 0, reference=_PROBLEM.solution)
        np.testing.assert_array_equal(trajectory.diverged, [False, True, False])
        self.assertTrue(np.isnan(trajectory.squared_distance[-1, 1]) and np.isnan(trajectory.weights[1]).all())
        self.assertTrue(np.isfinite(trajectory.weights[[0, 2]]).all())
        slow = step_by_step.simulate(setting, 60, 0)
        np.testing.assert_array_equal(slow.diverged, [False, True, False])
        self.assertTrue(np.isfinite(slow.loss[:, [0, 2]]).all())

    def test_says_when(self):
        setting = _setting(num_runs=1, step_size=8 * _PROBLEM.paper_step_size, noise_scale=0.0)
        dense = simulation.simulate(setting, 200, 0, grid=np.arange(201))
        at = dense.diverged_at[0]
        self.assertLessEqual(dense.loss[at - 1, 0], 1e6 * dense.loss[0, 0])
        self.assertGreater(dense.loss[at, 0], 1e6 * dense.loss[0, 0])
        self.assertEqual(simulation.simulate(setting, 200, 0).diverged_at[0], at)


class LimitTest(absltest.TestCase):
    def test_gradient_descent_reaches_the_mirror_map_s_minimiser(self):
        setting = _setting(step_size=0.05 / _PROBLEM.largest_eigenvalue, noise_scale=0.0, batch_size=None, num_runs=1)
        trajectory = simulation.simulate(setting, 60_000, 0)
        limit = mirror_map.minimizer(_PROBLEM.features, _PROBLEM.targets, 0.1)
        beta = setting.predictor(trajectory.weights)[0]
        # First order in the step: gradient flow's limit, with a step of 0.05 / lambda_max.
        self.assertLess(np.sum((beta - limit) ** 2) / np.sum(limit**2), 1e-4)

    def test_least_squares_reaches_the_minimum_norm_interpolator(self):
        setting = _setting(
            model="least_squares", step_size=1 / np.sum(_PROBLEM.features**2, axis=1).max(), noise_scale=0.0
        )
        trajectory = simulation.simulate(setting, 20_000, 0)
        solution = least_squares.minimum_norm_solution(_PROBLEM.features, _PROBLEM.targets)
        np.testing.assert_allclose(trajectory.weights, np.tile(solution, (4, 1)), atol=1e-6)


class DrawsTest(parameterized.TestCase):
    def test_blocks_are_independent_and_keyed_by_purpose(self):
        source = _setting().source(5)
        first, second = source(0), source(1)
        self.assertLess(abs(np.corrcoef(first.normals.ravel(), second.normals.ravel())[0, 1]), 0.03)
        self.assertGreater(np.mean(first.indices != second.indices), 0.8)
        self.assertBetween(np.abs(first.normals).mean(), 0.78, 0.82)  # sqrt(2 / pi) = 0.798; 4e4 draws
        self.assertSetEqual(set(first.indices.ravel().tolist()), set(range(8)))
        other = _setting().source(6)(0)
        self.assertLess(abs(np.corrcoef(first.normals.ravel(), other.normals.ravel())[0, 1]), 0.03)

    def test_prefetch_keeps_the_order(self):
        self.assertEqual(list(draws.prefetch(lambda block: block, 7, workers=3)), list(range(7)))

    def test_a_thread_s_error_is_raised(self):
        with self.assertRaises(ZeroDivisionError):
            list(draws.prefetch(lambda block: 1 / (3 - block), 7))


class GridTest(absltest.TestCase):
    def test_grid(self):
        grid = trajectories.logarithmic_grid(100_000)
        self.assertEqual((grid[0], grid[1], grid[-1]), (0, 1, 100_000))
        self.assertTrue((np.diff(grid) > 0).all())
        self.assertEqual(np.sum((grid > 1_000) & (grid <= 10_000)), 20)
        np.testing.assert_array_equal(trajectories.logarithmic_grid(1), [0, 1])
        with self.assertRaisesRegex(ValueError, "`num_steps` must be at least 1"):
            trajectories.logarithmic_grid(0)


class RefusalTest(parameterized.TestCase):
    @parameterized.parameters(
        (dict(model="deep"), "`model` must be one of"),
        (dict(features=np.zeros((0, 3)), targets=np.zeros(0)), "`features` must be"),
        (dict(targets=np.zeros(3)), "`features` must be"),
        (dict(step_size=0.0), "`step_size` must be positive"),
        (dict(noise_scale=-1.0), "`noise_scale` must be at least 0"),
        (dict(noise_scale=np.zeros(3)), "`noise_scale` must be at least 0, a number or one per run"),
        (dict(num_runs=0), "`num_runs` must be at least 1"),
        (dict(batch_size=0), "`batch_size` must be at least 1"),
        (dict(vanishing_noise=False), "`vanishing_noise` must be True"),
    )
    def test_refuses(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            _setting(**changes)


if __name__ == "__main__":
    absltest.main()
