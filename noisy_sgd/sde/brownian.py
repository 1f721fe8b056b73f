"""Increments of Brownian motion on a regular grid, and the same path on a coarser grid.

A strong order of convergence compares two discretizations *on one path*, so the coarse increments must be sums of the
fine ones:

    fine = brownian.increments(keys.arbitrary(0), num_steps=1024, step_size=1e-3, shape=(200, 5))
    coarse = brownian.coarsen(fine, 4)    # the same 200 paths with step 4e-3

Methods above order 1 also need the time integral of the path within a step, I = int_t^{t+h} (W_s - W_t) ds (Kloeden
and Platen, section 10.4); `increments_with_integrals` and `coarsen_with_integrals` are the same two functions for the
pair.
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sde import validation


def increments(generator, num_steps, step_size, shape):
    """Independent N(0, h) increments.

    Args:
        generator: `np.random.Generator`.
        num_steps: number of steps.
        step_size: h, in units of time.
        shape: shape of one increment; every entry is its own Brownian motion.

    Returns:
        Array [num_steps, *shape].

    Raises:
        ValueError: for a step size that is not positive, or fewer than one step.
    """
    step_size = float(checks.positive("step_size", step_size))
    draws = generator.standard_normal((validation.count("num_steps", num_steps), *shape))
    draws *= np.sqrt(step_size)
    return draws


def coarsen(fine, factor):
    """The same path on a grid `factor` times coarser: sums of consecutive increments.

    Factors of two are taken one by one, so that coarsening by 2 and then by 2 is coarsening by 4 to the last bit.

    Args:
        fine: increments [num_steps, ...].
        factor: how many fine steps make a coarse one; divides num_steps.

    Returns:
        Array [num_steps / factor, ...].

    Raises:
        ValueError: where `factor` does not divide the number of steps.
    """
    coarse, factor = np.asarray(fine), _divisor(fine, factor)
    while factor % 2 == 0:
        coarse = coarse[0::2] + coarse[1::2]
        factor //= 2
    if factor == 1:
        return coarse
    return coarse.reshape(-1, factor, *coarse.shape[1:]).sum(axis=1)


def increments_with_integrals(generator, num_steps, step_size, shape):
    """Increments and, for each, the time integral of the path within its step.

    I = h/2 (dW + dV / sqrt 3) with dV an independent N(0, h): variance h^3/3 and covariance h^2/2 with dW.

    Args:
        generator: `np.random.Generator`.
        num_steps: number of steps.
        step_size: h, in units of time.
        shape: shape of one increment.

    Returns:
        Two arrays [num_steps, *shape]: increments and integrals.

    Raises:
        ValueError: as `increments`.
    """
    path = increments(generator, num_steps, step_size, shape)
    independent = increments(generator, num_steps, step_size, shape)
    return path, 0.5 * step_size * (path + independent / np.sqrt(3.0))


def coarsen_with_integrals(fine, integrals, step_size, factor):
    """Increments and integrals of the same path on a grid `factor` times coarser.

    A later fine step starts where the earlier ones ended, hence I = sum_i [I_i + h sum_{j<i} dW_j].

    Args:
        fine: increments [num_steps, ...].
        integrals: their integrals, same shape.
        step_size: h of the fine grid.
        factor: how many fine steps make a coarse one; divides num_steps.

    Returns:
        Two arrays [num_steps / factor, ...].

    Raises:
        ValueError: where `factor` does not divide the number of steps.
    """
    factor = _divisor(fine, factor)
    grouped = np.reshape(fine, (-1, factor, *np.shape(fine)[1:]))
    grouped_integrals = np.reshape(integrals, grouped.shape)
    start = np.cumsum(grouped, axis=1) - grouped
    return coarsen(fine, factor), (grouped_integrals + step_size * start).sum(axis=1)


def _divisor(fine, factor):
    factor = validation.count("factor", factor)
    if len(fine) % factor:
        raise ValueError(f"`factor` must divide the number of steps, {len(fine)}. Received: factor={factor}")
    return factor
