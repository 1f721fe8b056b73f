"""What a subclass of `PrivateModel` may not override: methods of Keras' that clipping goes past, or never calls.

    overrides.check(model, private_model.PrivateModel, optimizer)    # ValueError: `compute_loss` ...

All other methods are called as by Keras: `compute_metrics`, `test_step`, `call`, callbacks and the rest.
"""

import keras

from noisy_sgd.optimizers import privatized

_LOSS = (
    "`compute_loss` must not be overridden: it gives one loss for a whole batch, of which no example's gradient can be "
    "clipped; pass a function or keras.losses.Loss of one loss per example as `loss=` of `compile`, and metrics to "
    "`compute_metrics`. Received: compute_loss of {received}"
)
_STEP = (
    "`train_step` must not be overridden where the optimizer is a DPSGD: whether another step mixes the examples of a "
    "batch is not tried; put what it does into the data, the model or `compute_metrics`, or write a loop of your own "
    "with noisy_sgd.clipped_gradient_sum. Received: train_step of {received}"
)


def check(model: keras.Model, model_class: type[keras.Model], optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses methods of the class or of the object itself.

    Args:
        model: of the class or a subclass.
        model_class: `PrivateModel`.
        optimizer: what the model is trained with.

    Raises:
        ValueError: naming the method and the way out.
    """
    _refuse(model, "compute_loss", keras.Model.compute_loss, _LOSS)
    if privatized.needs_clipped_sum(optimizer):
        _refuse(model, "train_step", model_class.train_step, _STEP)


def _refuse(model, name, ours, message):
    found = getattr(model, name)
    if getattr(found, "__func__", found) is not ours:
        raise ValueError(message.format(received=type(model).__name__))
