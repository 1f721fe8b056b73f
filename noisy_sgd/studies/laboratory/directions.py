"""What clipping and noise do to the gradient over all training examples, at a network's current weights.

With g the mean gradient, c the mean of the clipped gradients, and noise s Z in d dimensions, the cosines to g are

    clip          <g, c> / (|g| |c|)
    noise         |g| / sqrt(|g|^2 + d s^2)
    noise_clip    <g, c> / (|g| sqrt(|c|^2 + d s^2))

The last two have the mean of the noise's squared norm in place of the squared norm, so that nothing is drawn.

    directions = Directions(model, l2_norm_clip=4.0, noise_std=0.01)
    directions(images, labels)["cosines"]["clip"]
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.studies.laboratory import arms


class Directions:
    """The directions of a network's gradients under cross-entropy.

    Args:
        model: whose weights are read at every call.
        l2_norm_clip: C.
        noise_std: s, the standard deviation of the noise on the mean gradient.
    """

    def __init__(self, model: keras.Model, l2_norm_clip: float, noise_std: float):
        self._model, self._clip = model, l2_norm_clip
        dimension = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        self._noise = dimension * noise_std**2
        self._products = tf.function(self._graph, autograph=False)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """The length of the mean gradient, the median norm, the fraction of examples clipped, and `cosines` by arm."""
        norms, plain, product, clipped = (np.asarray(one, np.float64) for one in self._products(images, labels))
        length = np.sqrt(plain)
        return {
            "gradient_norm": float(length),
            "median_norm": float(np.median(norms)),
            "fraction_clipped": float(np.mean(norms > self._clip)),
            "cosines": {
                arms.CLIP: float(product / (length * np.sqrt(clipped))),
                arms.NOISE: float(length / np.sqrt(plain + self._noise)),
                arms.NOISE_CLIP: float(product / (length * np.sqrt(clipped + self._noise))),
            },
        }

    def _graph(self, images, labels):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        plain, clipped = (
            clipped_sum.clipped_gradient_sum(self._model, loss, images, labels, l2_norm_clip=bound)
            for bound in (np.inf, self._clip)
        )
        count = tf.cast(tf.shape(labels)[0], tf.float32)
        g, c = (tf.concat([tf.reshape(value, [-1]) for value in one.values], 0) / count for one in (plain, clipped))
        return plain.norms, tf.reduce_sum(g * g), tf.reduce_sum(g * c), tf.reduce_sum(c * c)
