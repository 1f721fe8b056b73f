"""The sum of a microbatch's gradients as its optimizer needs it: clipped ones for DP-SGD.

    seen, values, statistic = microbatch_gradients.summed(model, loss_fn, x, (y,), mask=None, engine="auto", views=1)

Covered by tests/training/private_model_test.py.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from noisy_sgd.gradients import arguments, clipped_sum, trials
from noisy_sgd.gradients.engines import unclipped
from noisy_sgd.optimizers import privatized


class Accumulated(NamedTuple):
    """What `PrivateModel.accumulate` saw of a microbatch; facts about its examples, without noise.

    Attributes:
        losses: [B], the mean over an example's views; 0 for padding.
        predictions: the model's outputs, each [B, ...], the mean over an example's views.
        norms: [B], of each example's gradient before clipping, 0 for padding, not finite where the gradient is not;
            None without `noisy_sgd.DPSGD`.
    """

    losses: tf.Tensor
    predictions: Any
    norms: tf.Tensor | None


def summed(model: keras.Model, loss_fn, x, targets, *, mask, engine: str, views: int):
    """One pass over a microbatch.

    Args:
        model: a compiled model.
        loss_fn: loss_fn(targets, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        targets: any nest of [B, ...].
        mask: [B], 0 for padding, or None.
        engine: as in `noisy_sgd.clipped_gradient_sum`.
        views: augmented views of an example.

    Returns:
        (an `Accumulated`, the sums in the order of the trainable weights, `ClippedSum.statistic`).

    Raises:
        ValueError: for a model that adds losses of its own.
    """
    x = arguments.of_known_sizes(x, model, views)
    if privatized.needs_clipped_sum(model.optimizer):
        clip = model.optimizer.clip
        result = clipped_sum.engine_named(engine)(model, loss_fn, x, targets, clip=clip, mask=mask, views=views)
        seen, values = Accumulated(result.losses, result.predictions, result.norms), result.values
        present = None if mask is None else tf.cast(mask, tf.bool)
        statistic = model.optimizer.statistic(result.norms, present)
    else:
        losses, predictions, values = unclipped.gradient_sum(model, loss_fn, x, targets, mask=mask, views=views)
        seen, statistic = Accumulated(losses, predictions, None), None
    trials.check_no_added_losses(model)
    return seen, values, statistic
