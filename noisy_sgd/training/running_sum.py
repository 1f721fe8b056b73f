"""A sum over the microbatches of a logical batch, kept apart on each replica until the one all-reduce.

total = running_sum.RunningSum(model.trainable_weights)    # in the strategy's scope
total.add(values, count); total.read(); total.reset()      # on a replica
"""

import tensorflow as tf


class RunningSum:
    """One accumulator a weight, and the number of examples; invisible to Keras' saving, since a step never ends
    half-way.

    Args:
        weights: the Keras weights whose gradients are summed.
    """

    def __init__(self, weights):
        self._like = [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]
        self._values = [_accumulator(tf.zeros(weight.shape, weight.dtype)) for weight in weights]
        self._count = _accumulator(tf.zeros([], tf.float32))

    def fits(self, weights) -> bool:
        """Whether these are the weights it was made for."""
        return self._like == [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]

    def add(self, values, count) -> None:
        """Adds a microbatch's sums and its number of examples to this replica's."""
        for accumulator, value in zip(self._values, values, strict=True):
            accumulator.assign_add(tf.cast(value, accumulator.dtype))
        self._count.assign_add(tf.cast(count, tf.float32))

    def read(self) -> tuple[list[tf.Tensor], tf.Tensor]:
        """This replica's sums, and its number of examples."""
        return [tf.identity(accumulator) for accumulator in self._values], tf.identity(self._count)

    def reset(self) -> None:
        """Back to zero."""
        for accumulator in [*self._values, self._count]:
            accumulator.assign(tf.zeros_like(accumulator))


def _accumulator(initial) -> tf.Variable:
    return tf.Variable(
        initial,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
