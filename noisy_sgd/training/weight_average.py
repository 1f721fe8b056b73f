"""A moving average of the weights, by decay with the warm-up of TAN (Sander et al. 2023), which the paper evaluates.

    average <- d_t average + (1 - d_t) weights,    d_t = min(decay, (1 + t) / (10 + t)),    t = 0, 1, ...

so that the first weights, which are far from the final ones, soon lose their influence. The average is computed from
the weights alone. It costs no privacy, and no communication, because the weights are the same on every replica.

    with strategy.scope():
        average = weight_average.WeightAverage(model.trainable_weights, decay=0.9999)
    average.update(strategy, step)          # after every step, from step 0 on, in cross-replica context
    with average.applied(model):
        results = evaluate()
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from noisy_sgd import checks


class WeightAverage:
    """The moving average of some weights of a model; `applied` leaves the other weights unchanged.

    It starts at the current weights, and has their precision.

    Args:
        weights: Keras weights, usually `model.trainable_weights`.
        decay: in [0, 1): the fraction of the average that a step keeps after the warm-up. With 0 it equals the weights.

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
        """The averages in the order of the weights, for checkpoints."""
        return list(self._averages)

    def update(self, strategy: tf.distribute.Strategy, step) -> None:
        """Updates the average with the current weights; in cross-replica context, eagerly or in a tf.function.

        Args:
            strategy: the strategy in whose scope the average was made.
            step: t, the number of earlier updates; an integer or a scalar tensor.
        """
        step = tf.cast(step, tf.float64)
        decay = tf.minimum(tf.constant(self.decay, tf.float64), (1.0 + step) / (10.0 + step))

        def move(average, weight):
            average.assign_add(tf.cast(1.0 - decay, average.dtype) * (weight - average))

        for average, weight in zip(self._averages, self._weights, strict=True):
            strategy.extended.update(average, move, args=(weight.value,))

    def reset(self) -> None:
        """Starts again from the current weights."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(tf.convert_to_tensor(weight))

    @contextlib.contextmanager
    def applied(self, model: keras.Model) -> Iterator[None]:
        """Sets the weights to their averages within a `with` block, and restores them afterwards.

        Args:
            model: the model whose weights are averaged.

        Raises:
            ValueError: for a model without these weights.
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
