"""The toy problems under Keras: models and the ordinary `NoisySGD`, one step at a time.

It takes the settings of `simulation.simulate`. Before each step the optimizer's `noise_std`, a variable with one value
per run, is set from the loss: 2 sigma sqrt(L) for a diagonal linear network (eq. (18)), sigma sqrt(2 L) for
least squares, or sigma / sqrt(gamma) where the noise is constant. The noise is the optimizer's, a function of (seed,
step); the sampled examples are those of `simulation.simulate` for the same seed.

    trajectory = step_by_step.simulate(setting, num_steps=1000, seed=0, reference=beta)

Tested by tests/toy/simulation_test.py.
"""

import numpy as np
import tensorflow as tf

from noisy_sgd.mechanisms import correlated
from noisy_sgd.models import diagonal_linear, least_squares
from noisy_sgd.optimizers import sgd
from noisy_sgd.toy import trajectories


def simulate(setting, num_steps, seed, *, reference=None, grid=None):
    """Trains the Keras model of a setting, all runs in one variable.

    Args:
        setting: a `settings.RunSettings`.
        num_steps: updates.
        seed: integer; examples and noise are functions of it.
        reference: beta* [d], to which distances are recorded. Defaults to None.
        grid: increasing steps at which to record. Defaults to `trajectories.logarithmic_grid(num_steps)`.

    Returns:
        A `trajectories.Trajectory`; its `accumulated_noise` is NaN where there is noise, which the optimizer does not
        return.

    Raises:
        ValueError: for fewer than one step, for networks deeper than 2, which are no Keras model, and for noise
            coefficients that differ from run to run.
    """
    if setting.noise_coefficients.ndim > 1:
        raise ValueError(
            "`setting` must have noise coefficients [q]; `simulation.simulate` takes other ones for every run. "
            f"Received: noise_coefficients of shape {setting.noise_coefficients.shape}"
        )
    if setting.depth > 2:
        raise ValueError(
            f"`setting` must have depth 2; `simulation.simulate` takes more. Received: depth={setting.depth}"
        )
    grid = trajectories.logarithmic_grid(num_steps) if grid is None else grid
    records = trajectories.Records(setting, grid, reference)
    source = setting.source(seed)
    model, loss_fn, weights = _model(setting)
    step = _step_function(setting, model, loss_fn, weights, _optimizer(setting, seed))
    for number in range(num_steps):
        if number % source.steps == 0:
            block = source(number // source.steps)
        records.record(number, weights.numpy())
        squares = step(None if block.indices is None else block.indices[number % source.steps].T).numpy()
        after = weights.numpy()
        if records.add(number, squares[None], None, after):
            weights.assign(after)
    records.record(num_steps, weights.numpy())
    return records.trajectory(weights.numpy())


def _model(setting):
    if setting.model == "diagonal_linear":
        model = diagonal_linear.DiagonalLinearNetwork(setting.dimension, setting.num_runs)
        loss_fn, weights = diagonal_linear.quarter_squared_error, model.signed_weights.value
    else:
        model = least_squares.LinearLeastSquares(setting.dimension, setting.num_runs)
        loss_fn, weights = least_squares.half_squared_error, model.coefficients.value
    weights.assign(setting.initial)
    return model, loss_fn, weights


def _optimizer(setting, seed):
    """NoisySGD with one step size and one noise per run; Keras stores floats as float32, and keeps a callable."""
    per_run = (setting.num_runs,) + (1,) * (len(setting.weights_shape) - 1)
    step_size = tf.constant(setting.step_size.reshape(per_run), tf.float64)
    geometry = "isotropic"
    if setting.model == "diagonal_linear":
        geometry = "mirrored" if setting.shared_noise else "multiplicative"
    noise = correlated.CorrelatedNoise(setting.noise_coefficients)
    return sgd.NoisySGD(lambda: step_size, np.zeros(per_run), seed=seed, geometry=geometry, noise=noise)


def _step_function(setting, model, loss_fn, weights, optimizer):
    features, targets = tf.constant(setting.features), tf.constant(setting.targets)
    num_examples = len(setting.targets)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(indices):
        """One update from the examples [batch, R] (None: all); returns |r|^2 before it, [R]."""
        squares = tf.reduce_sum(least_squares.residuals(targets, model(features)) ** 2, axis=0)
        noise = setting.noise_scale * tf.sqrt(squares / num_examples)
        if not setting.vanishing_noise:
            noise = setting.noise_scale / np.sqrt(setting.step_size)
        optimizer.noise_std.assign(tf.reshape(noise, optimizer.noise_std.shape))
        x, y = (features, targets) if indices is None else (tf.gather(features, indices), tf.gather(targets, indices))
        with tf.GradientTape() as tape:
            mean_loss = tf.reduce_mean(loss_fn(y, model(x)))
        optimizer.apply(tape.gradient(mean_loss, model.trainable_variables), model.trainable_variables)
        return squares

    return step
