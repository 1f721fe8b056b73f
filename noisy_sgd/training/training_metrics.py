"""Metrics of the training examples: loss, accuracy and, for DP-SGD, facts about the clipping.

They are computed from the training data without noise. In a DP-SGD run they are private facts, which the privacy
statement does not cover.

    with strategy.scope():
        metrics = training_metrics.for_algorithm("dp_sgd")
    training_metrics.update(metrics, model.accumulate(x, y, mask=mask), y, mask, clip_norm=1.0)    # on a replica
    {name: float(metric.result()) for name, metric in metrics.items()}
"""

import keras
import tensorflow as tf


def classification() -> dict[str, keras.metrics.Metric]:
    """Mean "loss" and "accuracy"; call this in the strategy's scope."""
    return {
        "loss": keras.metrics.Mean(name="loss"),
        "accuracy": keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
    }


def for_algorithm(algorithm: str) -> dict[str, keras.metrics.Metric]:
    """The training metrics of an algorithm; call this in the strategy's scope.

    Args:
        algorithm: "sgd", "noisy_sgd" or "dp_sgd".

    Returns:
        "loss" and "accuracy". For "dp_sgd" also "gradient_norm", the mean norm of the gradients before clipping,
        "fraction_clipped", the fraction of gradients above the bound, and "non_finite_examples", the number of examples
        whose gradient is not finite. Such examples contribute nothing to the step or to the other metrics.
    """
    metrics = classification()
    if algorithm == "dp_sgd":
        metrics["gradient_norm"] = keras.metrics.Mean(name="gradient_norm")
        metrics["fraction_clipped"] = keras.metrics.Mean(name="fraction_clipped")
        metrics["non_finite_examples"] = keras.metrics.Sum(name="non_finite_examples")
    return metrics


def update(metrics: dict[str, keras.metrics.Metric], accumulated, labels, mask=None, clip_norm=None) -> None:
    """Adds a microbatch to the metrics; padding never counts.

    Args:
        metrics: from `for_algorithm` or `classification`; an empty dict does nothing.
        accumulated: from `PrivateModel.accumulate` for the same microbatch.
        labels: [B].
        mask: [B], 0 for padding. Defaults to no padding.
        clip_norm: the bound on the gradients of this step; needed for "fraction_clipped".
    """
    losses, predictions, norms = accumulated
    present = tf.ones_like(losses, tf.bool) if mask is None else tf.cast(mask, tf.bool)
    counted = present if norms is None else present & tf.math.is_finite(norms)

    def only_counted(values):
        # A weight of 0 is not enough, because 0 * NaN is NaN.
        return tf.where(counted, tf.cast(values, tf.float32), 0.0)

    for name, metric in metrics.items():
        if name == "loss":
            metric.update_state(only_counted(losses), sample_weight=counted)
        elif name == "gradient_norm":
            metric.update_state(only_counted(norms), sample_weight=counted)
        elif name == "fraction_clipped":
            metric.update_state(only_counted(norms > tf.cast(clip_norm, norms.dtype)), sample_weight=counted)
        elif name == "non_finite_examples":
            metric.update_state(tf.cast(present & ~counted, tf.float32))
        else:
            metric.update_state(labels, predictions, sample_weight=counted)
