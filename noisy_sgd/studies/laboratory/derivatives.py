"""Derivatives of a network at its current weights: every example's gradient, and the spectra of Hessian and covariance.

The Hessian is that of the mean loss. Its products with vectors take two backward passes, and Lanczos' method finds its
largest eigenvalue from them. The covariance of the gradients g_1, ..., g_n with mean g,

    K = (1/n) sum_i (g_i - g)(g_i - g)^T,

has as many rows as there are weights. Its eigenvalues other than 0 are those of the n x n Gram matrix
(g_i - g) . (g_j - g) / n (Jastrzebski et al. 2020, arXiv 2002.09572).

    found = derivatives.Derivatives(trainer.model)      # compiled once for all weights
    found.top_of_hessian(images, labels)
    derivatives.covariance(found.gradients(images, labels)).top
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy.sparse import linalg

from noisy_sgd import keys
from noisy_sgd.gradients.engines import example_map
from noisy_sgd.training import private_model

# Gradients that are computed side by side; each call but the last has this many.
_AT_ONCE = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class Covariance:
    """Spectrum of the gradients' covariance: `trace`, and the largest eigenvalues in falling order."""

    trace: float
    largest: tuple[float, ...]

    @property
    def top(self) -> float:
        """The largest eigenvalue."""
        return self.largest[0]


class Derivatives:
    """Compiled derivatives of a model's loss with respect to its trainable weights.

    Args:
        model: compiled, without dropout.
    """

    def __init__(self, model: private_model.PrivateModel):
        self._model = model
        self._of_examples = tf.function(self._example_gradients, autograph=False)
        self._product = tf.function(self._hessian_product, autograph=False)

    def assign(self, values: Sequence[np.ndarray]) -> None:
        """Takes the values of all of the variables of another such model, as `training.Trainer.weights` has them."""
        for variable, value in zip(self._model.variables, values, strict=True):
            variable.assign(value)

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The gradient of every example's loss, float32 [n, number of weights]."""
        parts = [
            self._of_examples(
                tf.constant(images[first : first + _AT_ONCE]), tf.constant(labels[first : first + _AT_ONCE])
            )
            for first in range(0, len(labels), _AT_ONCE)
        ]
        return np.concatenate([part.numpy() for part in parts])

    def top_of_hessian(self, images: np.ndarray, labels: np.ndarray, *, tolerance: float = 1e-3) -> float:
        """The largest eigenvalue of the mean loss's Hessian.

        Args:
            images: [n, ...].
            labels: [n].
            tolerance: relative accuracy. Defaults to 1e-3.
        """
        size = sum(weight.shape.num_elements() for weight in self._values)
        images, labels = tf.constant(images), tf.constant(labels)

        def product(vector):
            return self._product(images, labels, tf.constant(vector.reshape(size), tf.float32)).numpy()

        operator = linalg.LinearOperator((size, size), matvec=product, dtype=np.float32)
        return float(_largest(operator, 1, tolerance)[0])

    @property
    def _values(self):
        return [weight.value for weight in self._model.trainable_weights]

    def _example_gradients(self, images, labels):
        values = self._values

        def one_example(example):
            image, label = example
            with tf.GradientTape() as tape:
                loss = self._losses(image[None], label[None])[0]
            return _flat(tape.gradient(loss, values, unconnected_gradients="zero"))

        return example_map.over_examples(one_example, (images, labels), self._model)

    def _hessian_product(self, images, labels, vector):
        values = self._values
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_mean(self._losses(images, labels))
            gradient = _flat(inner.gradient(loss, values, unconnected_gradients="zero"))
            along = tf.tensordot(gradient, vector, 1)
        return _flat(outer.gradient(along, values, unconnected_gradients="zero"))

    def _losses(self, images, labels):
        return self._model.per_example_losses(labels, self._model(images, training=False))


def covariance(gradients: np.ndarray, count: int = 10) -> Covariance:
    """The spectrum of the covariance of gradients [n, number of weights], by their Gram matrix.

    Args:
        gradients: one row per example.
        count: how many of the largest eigenvalues are returned, fewer than examples. Defaults to 10.
    """
    centered = gradients - gradients.mean(axis=0)
    gram = (centered @ centered.T).astype(np.float64) / len(gradients)
    # A dense solver takes ten times as long for the few eigenvalues that are needed.
    return Covariance(trace=float(np.trace(gram)), largest=tuple(_largest(linalg.aslinearoperator(gram), count)))


def _largest(operator, count, tolerance=0.0):
    """The largest eigenvalues of a symmetric operator, in falling order."""
    # The same start in every call, so that a measurement can be repeated.
    start = keys.arbitrary(0).standard_normal(operator.shape[0]).astype(operator.dtype)
    if not np.any(operator @ start):
        # Lanczos' method has no second vector where all units are dead.
        return [0.0] * count
    found = linalg.eigsh(operator, k=count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return sorted(found.tolist(), reverse=True)


def _flat(parts):
    return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)
