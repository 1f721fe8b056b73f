"""The sum of a microbatch's gradients, clipped if the optimizer is private.

    accumulated, sums = microbatch_gradients.gradient_sum(
        model, loss_fn, x, (y,), mask=None, engine="auto", augmentation_multiplicity=1
    )

Covered by tests/training/private_model_test.py.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from noisy_sgd.gradients import arguments, clipped_sum, trials
from noisy_sgd.gradients.engines import unclipped
from noisy_sgd.optimizers import privatized
from noisy_sgd.training import running_sum


class Accumulated(NamedTuple):
    """Facts about the examples of a microbatch, computed without noise; the result of `PrivateModel.accumulate`.

    Attributes:
        losses: [B], the mean over an example's views; 0 for padding.
        predictions: the model's outputs, each [B, ...], the mean over an example's views.
        norms: [B], the norm of each example's gradient before clipping; 0 for padding, not finite if the gradient is
            not finite. None for an optimizer that does not clip.
    """

    losses: tf.Tensor
    predictions: Any
    norms: tf.Tensor | None


def gradient_sum(model: keras.Model, loss_fn, x, targets, *, mask, engine: str, augmentation_multiplicity: int):
    """Sums the gradients of a microbatch.

    Args:
        model: a compiled model.
        loss_fn: loss_fn(targets, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, K, ...] if `augmentation_multiplicity` is K > 1.
        targets: any nest of [B, ...].
        mask: [B], 0 for padding, or None.
        engine: as in `noisy_sgd.clipped_gradient_sum`.
        augmentation_multiplicity: K, the number of views of each example.

    Returns:
        (an `Accumulated`, the `running_sum.Sums`).

    Raises:
        ValueError: for a model that adds losses of its own.
    """
    x = arguments.of_known_sizes(x, model, augmentation_multiplicity)
    if privatized.needs_clipped_sum(model.optimizer):
        clip = model.optimizer.clip
        clipped_gradient_sum = clipped_sum.engine_named(engine)
        result = clipped_gradient_sum(model, loss_fn, x, targets, clip=clip, mask=mask, views=augmentation_multiplicity)
        present = None if mask is None else tf.cast(mask, tf.bool)
        statistic = model.optimizer.statistic(result.norms, present)
    else:
        result = unclipped.gradient_sum(model, loss_fn, x, targets, mask=mask, views=augmentation_multiplicity)
        statistic = None
    trials.check_no_added_losses(model)
    sums = running_sum.Sums(result.values, statistic, result.remainder)
    return Accumulated(result.losses, result.predictions, result.norms), sums
