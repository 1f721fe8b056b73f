"""Trains one network many times with one compiled step: other seeds, other learning rates, other data.

Every step is that of `noisy_sgd.PrivateModel`; the loop over the steps is part of the compiled function, and the
examples are in memory. A seed draws the initialization, the order of the examples, and the noise.

    trainer = Trainer(network, noisy_sgd.NoisySGD(0.3, noise_std=0.006, seed=0), batch_size=64, ema_decay=0.98)
    trainer.start(images, labels, seed=3, learning_rate=0.1)
    trainer.advance(1_500)
    trainer.evaluate(test_images, test_labels).accuracy           # of the weights
    with trainer.average.applied(trainer.model): ...              # of their moving average

Two trainers of one model exchange their weights by `start(..., weights=other.weights())`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import sampling
from noisy_sgd.optimizers import noised, privatized
from noisy_sgd.training import private_model, weight_average

_EVALUATED_AT_ONCE = 2_500
_STEPS_PER_CALL = 100
# Batches of Poisson sampling are padded to the nominal size plus this many standard deviations.
_DEVIATIONS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over the examples: `loss` of the compiled loss, `accuracy` in [0, 1]."""

    loss: float
    accuracy: float


class Trainer:
    """A compiled network with its optimizer; `start` begins a run, `advance` trains on.

    Args:
        network: from a seed to a `PrivateModel` with the initialization of that seed.
        optimizer: any optimizer that a `PrivateModel` takes.
        batch_size: B, the nominal batch size, and the divisor of the summed gradient.
        loss: from targets and predictions to per-example losses, as Keras has it. Defaults to cross-entropy of logits.
        sampled: the class of the sampling scheme. Defaults to `sampling.Shuffled`.
        ema_decay: of the weights' moving average. Defaults to 0, which keeps no average.
    """

    def __init__(
        self,
        network: Callable[[int], private_model.PrivateModel],
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        loss: str | keras.losses.Loss | None = None,
        sampled: type[sampling.Scheme] = sampling.Shuffled,
        ema_decay: float = 0.0,
    ):
        self.model = network(0)
        self._network, self._sampled, self._batch_size = network, sampled, batch_size
        self.model.compile(
            optimizer,
            loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            batch_size=batch_size,
        )
        self.average = weight_average.WeightAverage(self.model.trainable_weights, ema_decay) if ema_decay else None
        self._initial = [variable.numpy() for variable in privatized.state_variables(optimizer)]
        self._strategy = tf.distribute.get_strategy()
        self._step = 0
        self._train = tf.function(self._steps, autograph=False)
        self._judge = tf.function(self._sums, autograph=False)
        self._predict = tf.function(lambda images: self.model(images, training=False), autograph=False)

    @property
    def weights(self) -> list[np.ndarray]:
        """The values of all of the model's variables."""
        return [variable.numpy() for variable in self.model.variables]

    @property
    def step(self) -> int:
        """The number of steps since the beginning of the run."""
        return self._step

    def start(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int,
        learning_rate: float,
        weights: Sequence[np.ndarray] | None = None,
        step: int = 0,
    ) -> None:
        """Begins a run, or continues that of another trainer.

        Args:
            images: of the training examples, [N, ...]; of the same shape in every run.
            labels: [N].
            seed: of initialization, order and noise.
            learning_rate: of the optimizer.
            weights: the model's variables. Defaults to the initialization of the seed.
            step: the number of steps behind these weights. Defaults to 0.
        """
        values = self._network(seed).variables if weights is None else weights
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(value)
        optimizer = self.model.optimizer
        for variable, value in zip(privatized.state_variables(optimizer), self._initial, strict=True):
            variable.assign(value)
        if noised.is_noised(optimizer):
            optimizer.rekey(seed)
        optimizer.iterations.assign(step)
        optimizer.learning_rate.assign(learning_rate)
        if self.average is not None:
            self.average.reset()
        self._scheme = self._sampled(len(labels), self._batch_size, seed)
        self._images, self._labels, self._step = tf.constant(images), tf.constant(labels), step

    def advance(self, num_steps: int) -> None:
        """Trains for this many steps."""
        end = self._step + num_steps
        while self._step < end:
            # Arrays of one shape, because another shape would be compiled again.
            indices = np.zeros((_STEPS_PER_CALL, self._padded_size), np.int32)
            mask = np.zeros(indices.shape, bool)
            count = min(end - self._step, _STEPS_PER_CALL)
            for row in range(count):
                batch = self._scheme.indices(self._step + row)
                indices[row, : len(batch)], mask[row, : len(batch)] = batch, True
            self._train(self._images, self._labels, tf.constant(indices), tf.constant(mask), tf.constant(count))
            self._step += count

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> Evaluation:
        """Loss and accuracy of the current weights on any number of examples."""
        sums = [
            self._judge(images[first : first + _EVALUATED_AT_ONCE], labels[first : first + _EVALUATED_AT_ONCE])
            for first in range(0, len(labels), _EVALUATED_AT_ONCE)
        ]
        losses, correct = (float(sum(part)) / len(labels) for part in zip(*sums, strict=True))
        return Evaluation(loss=losses, accuracy=correct)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The softmax of the current weights' logits, [n, classes]."""
        parts = [
            tf.nn.softmax(self._predict(images[first : first + _EVALUATED_AT_ONCE]))
            for first in range(0, len(images), _EVALUATED_AT_ONCE)
        ]
        return np.concatenate(parts)

    @property
    def _padded_size(self) -> int:
        if not self._sampled.amplifies:
            return self._batch_size
        return int(self._batch_size + _DEVIATIONS * self._batch_size**0.5) + 1

    def _steps(self, images, labels, indices, mask, num_steps):
        def body(step):
            batch = indices[step]
            self.model.accumulate(tf.gather(images, batch), tf.gather(labels, batch), mask=mask[step])
            self.model.finish()
            if self.average is not None:
                self.average.update(self._strategy, self.model.optimizer.iterations - 1)
            return (step + 1,)

        tf.while_loop(lambda step: step < num_steps, body, (tf.constant(0),), parallel_iterations=1)

    def _sums(self, images, labels):
        predictions = self.model(images, training=False)
        correct = tf.cast(tf.argmax(predictions, -1, output_type=tf.int32) == tf.cast(labels, tf.int32), tf.float32)
        return tf.reduce_sum(self.model.per_example_losses(labels, predictions)), tf.reduce_sum(correct)
