"""A sum over the microbatches of a logical batch, kept apart on each replica until the one all-reduce.

total = running_sum.RunningSum(model.trainable_weights)    # in the strategy's scope
total.add(values, count, unclipped); total.read(); total.reset()      # on a replica
"""

import tensorflow as tf


class RunningSum:
    """One accumulator a weight, the number of examples, and the count that adaptive clipping learns from; invisible to
    Keras' saving, since a step never ends half-way.

    Args:
        weights: the Keras weights whose gradients are summed.
    """

    def __init__(self, weights):
        self._like = [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]
        self._values = [_accumulator(tf.zeros(weight.shape, weight.dtype)) for weight in weights]
        self._count, self._unclipped = (_accumulator(tf.zeros([], tf.float32)) for _ in range(2))

    def fits(self, weights) -> bool:
        """Whether these are the weights it was made for."""
        return self._like == [(weight.path, tuple(weight.shape), weight.dtype) for weight in weights]

    def add(self, values, count, unclipped) -> None:
        """Adds a microbatch's sums, its number of examples and its `ClippedSum.unclipped` to this replica's."""
        for accumulator, value in zip(self._values, values, strict=True):
            accumulator.assign_add(tf.cast(value, accumulator.dtype))
        self._count.assign_add(tf.cast(count, tf.float32))
        self._unclipped.assign_add(unclipped)

    def read(self) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """This replica's sums, its number of examples, and their `ClippedSum.unclipped`."""
        values = [tf.identity(accumulator) for accumulator in self._values]
        return values, tf.identity(self._count), tf.identity(self._unclipped)

    def reset(self) -> None:
        """Back to zero."""
        accumulators = [*self._values, self._count, self._unclipped]
        zeros = {key: tf.zeros(*key) for key in {_key(accumulator) for accumulator in accumulators}}
        for accumulator in accumulators:
            accumulator.assign(zeros[_key(accumulator)])


def squared_norm(tensors) -> tf.Tensor:
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
