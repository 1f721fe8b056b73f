"""Refuses a subclass of `PrivateModel` that overrides a Keras method which per-example clipping cannot use.

    overrides.check(model, private_model.PrivateModel, optimizer)    # ValueError: `compute_loss` ...

All other methods are called as in Keras: `compute_metrics`, `test_step`, `call`, callbacks and the rest.
"""

import keras

from noisy_sgd.optimizers import privatized

_LOSS = (
    "`compute_loss` must not be overridden: it returns one loss for a whole batch, but clipping needs one loss per "
    "example; pass a function or a keras.losses.Loss with one loss per example as `loss=` of `compile`, and move "
    "metrics to `compute_metrics`. Received: compute_loss of {received}"
)
_STEP = (
    "`train_step` must not be overridden for a private optimizer, because another step may mix the examples of a "
    "batch; move its code to the data, the model or `compute_metrics`, or write a training loop with "
    "noisy_sgd.clipped_gradient_sum. Received: train_step of {received}"
)


def check(model: keras.Model, model_class: type[keras.Model], optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses overridden methods of the class or of the object.

    Args:
        model: an object of the class or of a subclass.
        model_class: `PrivateModel`.
        optimizer: the optimizer of the model.

    Raises:
        ValueError: naming the method and the way out.
    """
    _refuse(model, "compute_loss", keras.Model.compute_loss, _LOSS)
    if privatized.needs_clipped_sum(optimizer):
        _refuse(model, "train_step", model_class.train_step, _STEP)


def _refuse(model, name, ours, message):
    method = getattr(model, name)
    if getattr(method, "__func__", method) is not ours:
        raise ValueError(message.format(received=type(model).__name__))
