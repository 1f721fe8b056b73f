"""A moving average of the weights, by decay with the warm-up of TAN (Sander et al. 2023), which the paper evaluates.

    average <- d_t average + (1 - d_t) weights,    d_t = min(decay, (1 + t) / (10 + t)),    t = 0, 1, ...

so that the first steps, far from where the weights end, are soon forgotten. It is computed from the weights alone: it
costs no privacy, and no communication, since the weights are the same on every replica.

    with strategy.scope():
        average = weight_average.WeightAverage(model.trainable_weights, decay=0.9999)
    average.update(strategy, step)          # after every step, in cross-replica context: step 0 is the first
    with average.applied(model):
        results = evaluate()
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from noisy_sgd import checks


class WeightAverage:
    """The average of some of a model's weights; the others are used as they are while it is applied.

    It starts as the weights are when it is made, and is kept in their precision.

    Args:
        weights: Keras weights, usually `model.trainable_weights`: those that training moves.
        decay: in [0, 1): the fraction that a step leaves of the average, once it is warm. 0 follows the weights.

    Raises:
        ValueError: for a decay out of range.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float):
        checks.require(0 <= decay < 1, "decay", "must be at least 0 and less than 1", decay)
        self.decay = float(decay)
        self._weights = list(weights)
        self._averages = [
            tf.Variable(tf.convert_to_tensor(weight), trainable=False, name="average") for weight in self._weights
        ]

    @property
    def variables(self) -> list[tf.Variable]:
        """The averages, in the order of the weights: to be saved and restored with the run."""
        return list(self._averages)

    def update(self, strategy: tf.distribute.Strategy, step) -> None:
        """Takes the weights of the moment into the average; in cross-replica context, eagerly or in a tf.function.

        Args:
            strategy: the one in whose scope it was made.
            step: t, how many steps were averaged before; an integer or a scalar tensor.
        """
        step = tf.cast(step, tf.float64)
        decay = tf.minimum(tf.constant(self.decay, tf.float64), (1.0 + step) / (10.0 + step))

        def move(average, weight):
            average.assign_add(tf.cast(1.0 - decay, average.dtype) * (weight - average))

        for average, weight in zip(self._averages, self._weights, strict=True):
            strategy.extended.update(average, move, args=(weight.value,))

    def reset(self) -> None:
        """Starts again from the weights of the moment."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(tf.convert_to_tensor(weight))

    @contextlib.contextmanager
    def applied(self, model: keras.Model) -> Iterator[None]:
        """Gives the weights their averages for the length of a `with`, and then their own values back.

        Args:
            model: the model whose weights are averaged.

        Raises:
            ValueError: for a model that has not these weights.
        """
        own = {id(weight) for weight in model.weights}
        if not all(id(weight) in own for weight in self._weights):
            raise ValueError(
                f"`model` must be the one whose weights are averaged. Received: model={getattr(model, 'name', model)}"
            )
        kept = [tf.identity(tf.convert_to_tensor(weight)) for weight in self._weights]
        try:
            for weight, average in zip(self._weights, self._averages, strict=True):
                weight.assign(tf.convert_to_tensor(average))
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=True):
                weight.assign(value)
