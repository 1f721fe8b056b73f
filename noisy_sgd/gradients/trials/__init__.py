"""What is refused because a trial on synthetic inputs shows that a model or a loss mixes examples.

    trials.check(model)                          # ValueError: `model` must treat every example alone: ...
    loss_fn = trials.checked_loss(loss_fn)       # a call of it raises such an error
    trials.check_no_added_losses(model)          # after a call of the model

The questions, each in a module of its own: does a layer break privacy by its kind (`layer_checks`)? Do examples mix in
the model (`model_mixing`), or in the loss (`loss_mixing`)? Is the leading axis at each layer the examples' axis, as the
book-keeping engine needs (`example_axis`)?

`check` is covered by tests/gradients/clipped_sum_test.py.
"""

import contextlib

import keras

from noisy_sgd.gradients import layer_calls, layer_rules
from noisy_sgd.gradients.trials import example_axis, layer_checks, loss_mixing, model_mixing

checked_loss = loss_mixing.checked_loss
check_no_added_losses = layer_checks.check_no_added_losses

__all__ = ["check", "check_no_added_losses", "checked_loss"]


def check(model: keras.Model, inputs=None, *, clipped: bool = True, by_rules: bool = False) -> None:
    """Refuses a model whose training would not be private; what it found for a model is not tried again.

    Args:
        model: a Keras model.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used. Defaults to
            those of a functional model.
        clipped: whether its gradients are to be clipped per example; where they are not, examples may mix. Defaults to
            True.
        by_rules: whether to try the layers' rules too, as the book-keeping engine will. What they cannot serve is not
            refused here, since another engine can. Defaults to False.

    Raises:
        ValueError: naming the layer or the variable, and the way out.
    """
    layer_checks.check(model, inputs)
    if not clipped:
        return
    inputs = model.input if inputs is None else inputs
    model_mixing.check(model, inputs)
    if by_rules:
        with contextlib.suppress(layer_rules.NoRuleError):
            example_axis.check(model, layer_calls.layers_with_weights(model), inputs)
