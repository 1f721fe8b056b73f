"""Deliberately broken copies of the training: each changes one place of the real code while its context is open.

with twins.TWINS["noise forgotten"]():
    ...                                 # whatever is built and trained here has the fault
"""

import contextlib
from unittest import mock

import numpy as np
import tensorflow as tf

from noisy_sgd import keys
from noisy_sgd.gradients import clipping
from noisy_sgd.mechanisms import gaussian, toeplitz
from noisy_sgd.sampling import poisson
from noisy_sgd.training import private_model

_ADD_NOISE = gaussian.GaussianSumQuery.add_noise
_SUMS_AND_DIVISOR = private_model.PrivateModel._sums_and_divisor
_DERIVE = keys.derive


def _of_noise(change):
    """The twin whose noise is drawn as if this step's draw were `change(draw)`."""

    def add_noise(self, sums, statistic, state, draw):
        return _ADD_NOISE(self, sums, statistic, state, change(draw))

    return mock.patch.object(gaussian.GaussianSumQuery, "add_noise", add_noise)


def noise_forgotten():
    """No noise is added."""
    return _of_noise(lambda draw: draw._replace(share=0.0))


def noise_scaled_by_microbatch():
    """Of three microbatches each brings a third of the noise, and only one is counted."""
    return _of_noise(lambda draw: draw._replace(share=draw.share / 3))


def noise_reused():
    """Every step adds the noise of step 0."""
    return _of_noise(lambda draw: draw._replace(step=0 * draw.step, generation=0))


def one_replicas_noise():
    """Of all replicas only the first adds its share."""

    def first_alone(draw):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return draw._replace(share=tf.where(tf.equal(replica, 0), draw.share, 0.0))

    return _of_noise(first_alone)


def clip_forgotten():
    """Every factor is 1."""
    return mock.patch.object(clipping, "_at_most", lambda bound, norms: tf.ones_like(norms))


def divided_by_the_actual_batch():
    """The sum is divided by the number of examples that came, not by the configured one."""

    def sums_and_divisor(self):
        sums, divisor = _SUMS_AND_DIVISOR(self)
        context = tf.distribute.get_replica_context()
        count = context.all_reduce(tf.distribute.ReduceOp.SUM, self._running_sum.read()[1])
        return sums._replace(values=[value * divisor / count for value in sums.values]), divisor

    return mock.patch.object(private_model.PrivateModel, "_sums_and_divisor", sums_and_divisor)


def one_key_for_all():
    """Noise and inclusion have one key."""
    return mock.patch.object(keys, "derive", lambda seed, purpose: _DERIVE(seed, "noise"))


def fixed_batches():
    """Batches of exactly B examples, accounted as Poisson's."""

    def included(self, step):
        order = self._generator(step).permutation(self.num_examples)
        return np.sort(order[: self.batch_size]), None

    return mock.patch.object(poisson.Poisson, "_included", included)


def sensitivity_forgotten():
    """A run with correlated noise is priced as if one example moved it by one clip norm."""
    return mock.patch.object(toeplitz, "_remembered", lambda coefficients, length, separation, times: 1.0)


TWINS = {
    "none": contextlib.nullcontext,
    "noise forgotten": noise_forgotten,
    "noise scaled by microbatch": noise_scaled_by_microbatch,
    "noise reused": noise_reused,
    "one replica's noise": one_replicas_noise,
    "clip forgotten": clip_forgotten,
    "divided by the actual batch": divided_by_the_actual_batch,
    "one key for all": one_key_for_all,
    "fixed batches": fixed_batches,
    "sensitivity forgotten": sensitivity_forgotten,
}
