"""Refuses models whose training would not be private, naming the layer and the way out.

The sum of clipped gradients is bounded only if every gradient depends on one example, and private only if nothing but
that sum carries data from step to step: BatchNormalization breaks both (it mixes examples, and keeps their running mean
without noise). What other layers do, `independence` finds out by trying.

    validation.check_model(model)    # raises ValueError
"""

import keras


def check_model(model: keras.Model) -> None:
    """Refuses batch normalization, weights of half precision and activity regularizers.

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
        if isinstance(layer, keras.layers.BatchNormalization):
            raise ValueError(
                f"`model` must not mix examples: layer {layer.name!r} is a {type(layer).__name__}, which "
                "normalises over the batch and keeps running statistics without noise; use "
                "keras.layers.GroupNormalization instead. "
                f"Received: layer={layer.name}"
            )
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"`model` must have per-example losses only: layer {layer.name!r} has an `activity_regularizer`, whose "
                "gradient would not be clipped with its example; put the term into the loss, or use a "
                "weight regularizer. "
                f"Received: layer={layer.name}"
            )


def check_no_added_losses(model: keras.Model) -> None:
    """Refuses, after a call of the model, losses that layers added beside the per-example loss.

    Raises:
        ValueError: naming the first layer that called `add_loss`.
    """
    for layer in _all_layers(model):
        own = [weight for weight in layer.trainable_weights if weight.regularizer is not None]
        if len(layer.losses) > len(own) and not _children(layer):
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


def _all_layers(model: keras.Model) -> list[keras.Layer]:
    return list(model._flatten_layers(include_self=False, recursive=True))


def _children(layer: keras.Layer) -> list[keras.Layer]:
    return list(layer._flatten_layers(include_self=False, recursive=True))
