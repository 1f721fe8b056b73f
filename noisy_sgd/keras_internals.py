"""What Keras offers no public name for: each of its private attributes is read and written here alone.

All of them were seen in Keras 3.12.4 and 3.15.1. Methods of Keras that a subclass overrides stay in the subclass.

    keras_internals.layers(model)               # the model and all layers in it
    keras_internals.own_weights(model.layers[1])
"""

import contextlib
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import stateless_scope
from keras.src.models import functional


def layers(model: keras.Layer, *, include_self: bool = True) -> list[keras.Layer]:
    """All layers of a model or layer, at any depth, each once, in Keras' order.

    Keras 3.12.4 and 3.15.1: `Layer._flatten_layers`; `Model.layers` has the outermost ones only.

    Args:
        model: a model or a layer.
        include_self: whether it comes first. Defaults to True.
    """
    return list(model._flatten_layers(include_self=include_self, recursive=True))


def converts_inputs(model: keras.Model) -> bool:
    """Whether a model converts its inputs to the types of `model.inputs`, whatever nest and types it is called with.

    A functional model without a `call` of its own does so before its first layer.

    Keras 3.12.4 and 3.15.1: `Functional.call` begins with `Functional._standardize_inputs`.
    """
    keras_own = functional.Functional
    return isinstance(model, keras_own) and all(
        getattr(type(model), name) is getattr(keras_own, name) and name not in vars(model)
        for name in ("__call__", "call", "_standardize_inputs")
    )


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer itself that were added as trainable ones, whether they are frozen now or not.

    Keras 3.12.4 and 3.15.1: `Layer._trainable_variables`; `Layer.trainable_weights` adds those of the layers in it.
    """
    return list(layer._trainable_variables)


def stored_kernel(layer: keras.Layer) -> keras.Variable:
    """The variable behind `layer.kernel` or `layer.embeddings`, which with LoRA enabled is a sum of it and another one.

    Keras 3.12.4 and 3.15.1: `Dense._kernel`, `EinsumDense._kernel`, `BaseConv._kernel`, `Embedding._embeddings`.
    """
    return layer._embeddings if isinstance(layer, keras.layers.Embedding) else layer._kernel


@contextlib.contextmanager
def read_as(layer: keras.Layer, values: list[tuple[keras.Variable, tf.Tensor]]):
    """Within the block, this thread reads some weights of a layer as other values, which may have other shapes.

    What the layer assigns to its other variables, such as the states of seed generators, lasts.

    Keras 3.12.4 and 3.15.1: `stateless_scope.get_stateless_scope`; a new scope does not look into the one outside it.

    Args:
        layer: the layer.
        values: (weight, value).
    """
    outer = stateless_scope.get_stateless_scope() if stateless_scope.in_stateless_scope() else None
    before = {} if outer is None else dict(outer.state_mapping)
    before.update({id(weight): value for weight, value in values})
    scope = keras.StatelessScope()
    scope.state_mapping.update(before)
    with scope:
        yield
    for variable in layer.variables:
        found = scope.get_current_value(variable)
        if found is not before.get(id(variable)):
            variable.assign(found)


def optimizer_weights(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The weights that a built optimizer trains, in the order of its gradients.

    Keras 3.12.4 and 3.15.1: `Optimizer._trainable_variables`.
    """
    return list(optimizer._trainable_variables)


def seed_generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    """The distinct seed generators of all the model's layers, of which such as Dropout draw.

    Keras 3.12.4 and 3.15.1: `Layer._seed_generators`.
    """
    found = {id(generator): generator for layer in layers(model) for generator in layer._seed_generators}
    return list(found.values())


def mask(tensor: Any) -> Any:
    """What a layer or loss of Keras leaves on a tensor, True for what counts; None for no mask.

    Keras 3.12.4 and 3.15.1: the attribute `_keras_mask` of a tensor.
    """
    return getattr(tensor, "_keras_mask", None)


def attach_mask(tensor: tf.Tensor, found: tf.Tensor) -> None:
    """Leaves a mask on a tensor, as `mask` returns it.

    Keras 3.12.4 and 3.15.1: the attribute `_keras_mask` of a tensor.
    """
    tensor._keras_mask = found


def causally_padded(layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """The inputs of a convolution over time with padding="causal", padded as the layer pads them.

    Keras 3.12.4 and 3.15.1: `BaseConv._compute_causal_padding`.
    """
    return keras.ops.pad(inputs, layer._compute_causal_padding())


def is_rematerialized(layer: keras.Layer) -> bool:
    """Whether the layer was made in a `keras.RematScope`, so that its call runs a second time for the gradients.

    Keras 3.12.4 and 3.15.1: `Operation._remat_mode`.
    """
    return getattr(layer, "_remat_mode", None) is not None


def loss_arguments(loss: keras.losses.Loss) -> dict[str, Any]:
    """What one of Keras' own losses hands to its function; some of it is missing in `get_config`.

    Keras 3.12.4 and 3.15.1: `LossFunctionWrapper._fn_kwargs`; empty for losses without it.
    """
    return getattr(loss, "_fn_kwargs", {})


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric "loss" of a compiled model, a mean over its examples.

    Keras 3.12.4 and 3.15.1: `Trainer._loss_tracker`.
    """
    return model._loss_tracker
