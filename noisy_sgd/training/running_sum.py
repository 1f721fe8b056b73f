"""A sum over the microbatches of a logical batch, separate on each replica until the all-reduce.

total = running_sum.RunningSum(model.trainable_weights)    # in the strategy's scope
total.add(values, count); total.read(); total.reset()      # on a replica

Covered by tests/training/private_model_test.py.
"""

import tensorflow as tf

from noisy_sgd.optimizers import noised


class RunningSum:
    """One accumulator per weight, the number of examples, and the statistic that a mechanism needs.

    Keras does not save the accumulators, because a model is never saved in the middle of a step.

    Args:
        weights: the Keras weights whose gradients are summed.
        has_statistic: whether a scalar statistic is summed too. Defaults to False.
    """

    def __init__(self, weights, *, has_statistic: bool = False):
        self._like = [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]
        self._values = [_accumulator(tf.zeros(weight.shape, weight.dtype)) for weight in weights]
        self._count = _accumulator(tf.zeros([], tf.float32))
        self._statistic = _accumulator(tf.zeros([], tf.float32)) if has_statistic else None

    def fits(self, weights) -> bool:
        """Whether the accumulators fit these weights."""
        return self._like == [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]

    def add(self, values, count, statistic=None) -> None:
        """Adds the sums, the number of examples and the statistic of a microbatch to those of this replica."""
        for accumulator, value in zip(self._values, values, strict=True):
            accumulator.assign_add(tf.cast(value, accumulator.dtype))
        self._count.assign_add(tf.cast(count, tf.float32))
        if self._statistic is not None:
            self._statistic.assign_add(statistic)

    def read(self) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor | None]:
        """The sums, the number of examples and the statistic of this replica."""
        values = [tf.identity(accumulator) for accumulator in self._values]
        return values, tf.identity(self._count), None if self._statistic is None else tf.identity(self._statistic)

    def reset(self) -> None:
        """Resets the accumulators to zero."""
        statistic = [] if self._statistic is None else [self._statistic]
        accumulators = [*self._values, self._count, *statistic]
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
