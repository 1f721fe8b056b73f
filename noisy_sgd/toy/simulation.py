"""The toy problems, trained fast: gradient descent, SGD and Noisy-SGD on many runs at once, in NumPy.

With r the residuals, g the mean of r_i x_i over the step's examples (drawn with replacement), and Z normal,

    a = gamma g - gamma sigma |r| / sqrt(n) Z        w+- <- w+- (1 -+ a)     or     theta <- theta - a:

eq. (18), whose noise has standard deviation 2 sigma sqrt(L) for the network, and sigma sqrt(2 L) for least squares; or
with constant noise a = gamma g - sqrt(gamma) sigma Z, the Euler step of eq. (14). In a network of depth D, the same a
reaches the weights through their Jacobian: w+- <- w+- -+ D/2 a w+-^(D-1). The noise comes from threads. Noise that is
correlated over steps has c_0 Z_k + c_1 Z_(k-1) + ... in place of Z_k, with no draw before step 0.
`step_by_step` runs the Keras models under the ordinary `NoisySGD` instead; both are the same map of the same draws.

    setting = settings.RunSettings(
        model="diagonal_linear", features=x, targets=y, num_runs=5, step_size=0.1, noise_scale=0.5, initial=0.1
    )
    trajectory = simulation.simulate(setting, num_steps=100_000, seed=0, reference=beta)
    trajectory.squared_distance[-1]                 # |beta_T - beta*|^2 of each run; NaN where it diverged
"""

import dataclasses

import numpy as np

from noisy_sgd.toy import draws, trajectories


def simulate(setting, num_steps, seed, *, reference=None, grid=None, source=None, watch=None):
    """Runs a setting in NumPy, all runs at once, the noise drawn by threads beside the computation.

    Args:
        setting: a `settings.RunSettings`.
        num_steps: updates.
        seed: integer; examples and noise are functions of it.
        reference: beta* [d], to which distances are recorded. Defaults to None.
        grid: increasing steps at which to record. Defaults to `trajectories.logarithmic_grid(num_steps)`.
        source: draws in place of the seed's: block number to `draws.Block`, with a `steps` attribute. Defaults to None.
        watch: called repeatedly with the number of updates made since the last call. Defaults to None.

    Returns:
        A `trajectories.Trajectory`.

    Raises:
        ValueError: for fewer than one step.
    """
    records = trajectories.Records(
        setting, trajectories.logarithmic_grid(num_steps) if grid is None else grid, reference
    )
    source = setting.source(seed) if source is None else source
    # The network's pair comes first, so that each of the two is contiguous.
    weights = np.array(np.moveaxis(setting.initial, 0, -2), order="C")
    by_run = np.moveaxis(weights, -2, 0)
    advance = _kernel(setting, weights)
    mix, step = _mixer(setting), 0
    # Diverging runs overflow until the current stretch of steps ends, while the other runs continue.
    with np.errstate(all="ignore"):
        for block in draws.prefetch(source, -(-num_steps // source.steps)):
            first, block = step, mix(block)
            for stop in records.stops(first, min(first + source.steps, num_steps)):
                records.record(step, by_run)
                squares = advance(block, step - first, stop - first)
                normals = None if block.normals is None else block.normals[step - first : stop - first]
                records.add(step, squares, normals, by_run)
                step = stop
            if watch is not None:
                watch(step - first)
        records.record(num_steps, by_run)
    return records.trajectory(by_run)


def _mixer(setting):
    """A function that correlates the normals of consecutive blocks over the steps."""
    # [q, R, 1], or [q, 1, 1] for all runs.
    coefficients = np.atleast_2d(setting.noise_coefficients).T[..., None]
    lags = len(coefficients) - 1
    if setting.normals_shape is None or np.array_equal(setting.noise_coefficients, [1.0]):
        return lambda block: block
    past = np.zeros((lags, *setting.normals_shape))

    def mix(block):
        nonlocal past
        drawn = np.concatenate([past, block.normals])
        count = len(block.normals)
        mixed = coefficients[0] * block.normals
        for lag in range(1, lags + 1):
            mixed += coefficients[lag] * drawn[lags - lag : lags - lag + count]
        past = drawn[count:]
        return dataclasses.replace(block, normals=mixed)

    return mix


def _kernel(setting, weights):
    """Advances `weights` in place through a stretch of a block's steps; returns |r|^2 before each step, [steps, R]."""
    network = setting.model == "diagonal_linear"
    targets, transposed = setting.targets, np.ascontiguousarray(setting.features.T)
    num_examples, runs, dimension = len(targets), setting.num_runs, setting.dimension
    residual, beta, size = np.empty((runs, num_examples)), np.empty((runs, dimension)), np.empty((runs, 1))
    powers, slopes = np.empty_like(weights), 0.5 * setting.depth * np.array([-1.0, 1.0]).reshape(2, 1, 1)
    relative_slope = _slope(setting, residual)
    noisy = setting.normals_shape is not None
    noise = np.empty(setting.normals_shape) if noisy else None
    if setting.vanishing_noise:
        amplitude = setting.step_size * setting.noise_scale / np.sqrt(num_examples)
    else:
        amplitude = np.sqrt(setting.step_size) * setting.noise_scale
    size[:, 0] = amplitude

    def advance(block, first, last):
        squares = np.empty((last - first, runs))
        for index, square in zip(range(first, last), squares, strict=True):
            if network:
                np.multiply(weights, weights, out=powers)
                for _ in range(setting.depth - 2):
                    np.multiply(weights, powers, out=powers)
                np.subtract(powers[0], powers[1], out=beta)
                np.matmul(beta, transposed, out=residual)
            else:
                np.matmul(weights, transposed, out=residual)
            np.subtract(residual, targets, out=residual)
            np.einsum("rn,rn->r", residual, residual, out=square)
            step = relative_slope(block.indices, index)
            if noisy:
                if setting.vanishing_noise:
                    np.sqrt(square, out=size[:, 0])
                    np.multiply(size[:, 0], amplitude, out=size[:, 0])
                np.multiply(block.normals[index], size, out=noise)
                step = np.subtract(step, noise, out=noise)
            if network:
                np.multiply(slopes, step, out=powers)
                for _ in range(setting.depth - 1):
                    np.multiply(weights, powers, out=powers)
                np.add(weights, powers, out=weights)
            else:
                np.subtract(weights, step, out=weights)
        return squares

    return advance


def _slope(setting, residual):
    """gamma times the mean of r_i x_i over the step's examples, [R, d], as a function of (indices, step)."""
    step_size = setting.step_size[:, None]
    out = np.empty((setting.num_runs, setting.dimension))
    if setting.batch_size is None:
        mean_features = setting.features / len(setting.targets)

        def full(indices, index):
            np.matmul(residual, mean_features, out=out)
            return np.multiply(out, step_size, out=out)

        return full
    if setting.batch_size > 1:
        share = step_size / setting.batch_size

        def batch(indices, index):
            picked = np.take_along_axis(residual, indices[index], axis=1)
            np.einsum("rb,rbd->rd", picked, setting.features[indices[index]], out=out)
            return np.multiply(out, share, out=out)

        return batch
    offsets = np.arange(setting.num_runs) * len(setting.targets)
    flat, picked = residual.reshape(-1), np.empty((setting.num_runs, 1))

    def single(indices, index):
        chosen = indices[index, :, 0]
        # With mode="clip" take makes no copy of `out`; the indices are in range.
        flat.take(chosen + offsets, out=picked[:, 0], mode="clip")
        np.multiply(picked, step_size, out=picked)
        setting.features.take(chosen, axis=0, out=out, mode="clip")
        return np.multiply(out, picked, out=out)

    return single
