"""Refuses layers that break privacy by their kind, with an error that names the layer and the way out.

The sum of clipped gradients is bounded only if every gradient depends on one example. Training is private only if
nothing but that sum carries data from step to step. BatchNormalization in training mode breaks both: it mixes examples,
and keeps their running mean without noise. A frozen one uses fixed statistics. `model_mixing` tries all other layers.

    layer_checks.check(model)    # raises ValueError
"""

import weakref

import keras

from noisy_sgd import keras_internals
from noisy_sgd.gradients import layer_calls
from noisy_sgd.gradients.trials import synthetic

# For each model: the ids of the layers that were seen to run in inference mode only, with the kind of inputs.
_INFERRING: "weakref.WeakKeyDictionary[keras.Model, set]" = weakref.WeakKeyDictionary()


def check(model: keras.Model, inputs=None) -> None:
    """Refuses batch normalization in training mode, weights of half precision and activity regularizers.

    Args:
        model: a Keras model.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used. Defaults to
            those of a functional model.

    Raises:
        ValueError: naming the first such layer.
    """
    for weight in model.trainable_weights:
        if weight.dtype not in ("float32", "float64"):
            raise ValueError(
                "`model` must have trainable weights in float32 or float64, in which norms and sums are exact enough "
                f"for the bound to hold; use mixed_bfloat16. Received: weight={weight.path}, dtype={weight.dtype}"
            )
    for layer in _all_layers(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"`model` must have per-example losses only: layer {layer.name!r} has an `activity_regularizer`, whose "
                "gradient would not be clipped with its example; put the term into the loss, or use a "
                "weight regularizer. "
                f"Received: layer={layer.name}"
            )
    # Keras runs a frozen one in inference mode whatever it is called with.
    normalizing = [layer for layer in _all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    _check_normalization(model, [layer for layer in normalizing if layer.trainable], inputs)


def _check_normalization(model, layers, inputs):
    """Refuses the first of the layers that does not run in inference mode while the model trains."""
    if not layers:
        return
    if inputs is None:
        inputs = getattr(model, "inputs", None) and model.input
    seen = _INFERRING.setdefault(model, set())
    case = (tuple(id(layer) for layer in layers), None if inputs is None else synthetic.kind(model, inputs))
    if case in seen:
        return
    inferring = set() if inputs is None else _inferring(model, layers, inputs)
    for layer in layers:
        if id(layer) not in inferring:
            raise ValueError(
                f"`model` must not mix examples: layer {layer.name!r} is a {type(layer).__name__} in training mode, "
                "which normalizes over the batch and keeps running statistics without noise; freeze it (set "
                "`trainable = False` on it, or on the model that it is part of, before `compile`) or use "
                f"keras.layers.GroupNormalization instead. Received: layer={layer.name}"
            )
    seen.add(case)


def _inferring(model, layers, inputs) -> set[int]:
    """The layers, by id, that a call of the model in training calls in inference mode only."""
    inference, training = set(), set()

    def handler(layer, rule, usual, args, kwargs):
        mode = kwargs.get("training", args[1] if len(args) > 1 else None)
        (inference if mode is None or mode is False else training).add(id(layer))
        return usual(*args, **kwargs)

    def attempt(examples):
        if not model.built:
            synthetic.stateless_call(model, [], examples.batch(1), training=False)
        with layer_calls.intercepted([(layer, None) for layer in layers], handler):
            synthetic.stateless_call(model, synthetic.moved_weights(model), examples.batch(2), training=True)

    synthetic.first_success_of_model(model, inputs, attempt)
    return inference - training


def check_no_added_losses(model: keras.Model) -> None:
    """Refuses, after a call of the model, losses that layers added beside the per-example loss.

    Raises:
        ValueError: naming the first layer that called `add_loss`.
    """
    for layer in _all_layers(model):
        own = [weight for weight in layer.trainable_weights if weight.regularizer is not None]
        if len(layer.losses) > len(own) and not _all_layers(layer):
            raise ValueError(
                f"`model` must have per-example losses only: layer {layer.name!r} calls `add_loss`, whose gradient "
                f"would not be clipped with its example; put the term into the loss. Received: layer={layer.name}"
            )
    own = [weight for weight in model.trainable_weights if weight.regularizer is not None]
    if len(model.losses) > len(own):
        raise ValueError(
            "`model` must have per-example losses only: it calls `add_loss`, whose gradient would not be clipped with "
            f"its example; put the term into the loss. Received: model={model.name}"
        )


def _all_layers(model: keras.Layer) -> list[keras.Layer]:
    return keras_internals.layers(model, include_self=False)
