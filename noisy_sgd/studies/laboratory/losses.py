"""The losses of the laboratory, by name: of labels and logits, per example.

losses.named("hinge")(labels, logits)      # [B]
"""

import keras
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.studies.laboratory import settings


def named(name: str) -> keras.losses.Loss:
    """The loss of a name: the cross-entropy, or the multiclass hinge."""
    checks.choice("loss", name, settings.LOSSES)
    if name == settings.CROSS_ENTROPY:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return MulticlassHinge()


class MulticlassHinge(keras.losses.Loss):
    """max(0, 1 + max over the wrong classes of their logits - the right class's logit) (Crammer and Singer 2001)."""

    def call(self, y_true, y_pred):
        """The loss of each example, [B]."""
        y_pred = tf.convert_to_tensor(y_pred)
        right = tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), tf.shape(y_pred)[-1], dtype=y_pred.dtype)
        largest_wrong = tf.reduce_max(y_pred - right * y_pred.dtype.max / 2, axis=-1)
        return tf.nn.relu(1.0 + largest_wrong - tf.reduce_sum(right * y_pred, axis=-1))
