"""A sum over the microbatches of a logical batch, separate on each replica until the all-reduce.

total = running_sum.RunningSum(model.trainable_weights, model.optimizer)    # in the strategy's scope
total.add(sums, count); total.read(); total.reset()                         # on a replica

Covered by tests/training/private_model_test.py.
"""

from typing import NamedTuple

import tensorflow as tf

from noisy_sgd.gradients import clipping
from noisy_sgd.optimizers import noised, privatized


class Sums(NamedTuple):
    """What is summed over the examples of a logical batch.

    Attributes:
        values: the gradients, clipped if the optimizer is private, one tensor per trainable weight.
        statistic: `ClippedSum.statistic`, or None.
        remainder: `ClippedSum.remainder`, or None.
    """

    values: list[tf.Tensor]
    statistic: tf.Tensor | None = None
    remainder: list[tf.Tensor] | None = None


class RunningSum:
    """One accumulator per weight, the number of examples, and whatever else a private optimizer needs of a batch.

    Keras does not save the accumulators, because a model is never saved in the middle of a step.

    Args:
        weights: the Keras weights whose gradients are summed.
        optimizer: the optimizer that takes the sums.
    """

    def __init__(self, weights, optimizer):
        self._like = [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]
        private = privatized.needs_clipped_sum(optimizer)
        self._values = [_accumulator(tf.zeros(weight.shape, weight.dtype)) for weight in weights]
        self._count = _accumulator(tf.zeros([], tf.float32))
        self._statistic = _accumulator(tf.zeros([], tf.float32)) if private and optimizer.has_statistic else None
        with_remainder = private and clipping.wants_remainder(optimizer.clip)
        self._remainder = [_accumulator(tf.zeros(one.shape, one.dtype)) for one in weights] if with_remainder else []

    def fits(self, weights) -> bool:
        """Whether the accumulators fit these weights."""
        return self._like == [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]

    def add(self, sums: Sums, count) -> None:
        """Adds the sums and the number of examples of a microbatch to those of this replica."""
        added = [*sums.values, *(sums.remainder or [])]
        for accumulator, value in zip([*self._values, *self._remainder], added, strict=True):
            accumulator.assign_add(tf.cast(value, accumulator.dtype))
        self._count.assign_add(tf.cast(count, tf.float32))
        if self._statistic is not None:
            self._statistic.assign_add(sums.statistic)

    def read(self) -> tuple[Sums, tf.Tensor]:
        """The sums and the number of examples of this replica."""
        values, remainder = ([tf.identity(one) for one in part] for part in (self._values, self._remainder))
        statistic = None if self._statistic is None else tf.identity(self._statistic)
        return Sums(values, statistic, remainder or None), tf.identity(self._count)

    def reset(self) -> None:
        """Resets the accumulators to zero."""
        statistic = [] if self._statistic is None else [self._statistic]
        accumulators = [*self._values, self._count, *statistic, *self._remainder]
        zeros = {key: tf.zeros(*key) for key in {_key(accumulator) for accumulator in accumulators}}
        for accumulator in accumulators:
            accumulator.assign(zeros[_key(accumulator)])


def squared_norms(model, values, divisor) -> tuple[tf.Tensor, tf.Tensor]:
    """Squared L2 norms of the mean gradient before noise, and of the noise that the next step adds to it.

    Args:
        model: the model whose optimizer adds the noise.
        values: this replica's sums.
        divisor: the divisor of the sums, a scalar.
    """
    context = tf.distribute.get_replica_context()
    gradient = context.all_reduce(
        tf.distribute.ReduceOp.SUM, [value / tf.cast(divisor, value.dtype) for value in values]
    )
    if not noised.is_noised(model.optimizer):
        return _squared_norm(gradient), tf.zeros([])
    weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]
    noise = model.optimizer.noised([tf.zeros_like(value) for value in values], weights, release=False)
    return _squared_norm(gradient), _squared_norm(context.all_reduce(tf.distribute.ReduceOp.SUM, noise))


def _squared_norm(tensors) -> tf.Tensor:
    """The squared L2 norm of all tensors together, in single precision."""
    return tf.add_n([tf.cast(tf.reduce_sum(tf.square(tensor)), tf.float32) for tensor in tensors])


def _key(accumulator):
    return tuple(accumulator.shape), accumulator.dtype


def _accumulator(initial) -> tf.Variable:
    return tf.Variable(
        initial,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
