"""Takes the inputs and outputs of an existing functional or Sequential model, for a `PrivateModel`.

inputs, outputs = existing_model.inputs_and_outputs(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
"""

import keras

_FROM_MODEL = "noisy_sgd.PrivateModel.from_model(model) shares the layers of a functional or Sequential model"
_SEQUENTIAL = "noisy_sgd.PrivateModel.from_model(keras.Sequential([keras.Input(shape), ...])) takes layers"
_AROUND = (
    "noisy_sgd.PrivateModel(inputs, network(inputs)), with inputs = keras.Input(shape), takes a keras.Model or layer "
    "`network` that defines `call`"
)


def check_tensors(inputs=None, outputs=None, name=None, **kwargs) -> None:
    """Refuses a model, layers or nothing in place of the inputs and outputs of a functional model.

    Raises:
        ValueError: naming the way to a `PrivateModel`.
    """
    given = [*keras.tree.flatten(inputs), *keras.tree.flatten(outputs)]
    layers = [each for each in given if isinstance(each, keras.Layer)]
    if layers or inputs is None or outputs is None:
        way_out = _AROUND
        if layers:
            way_out = _FROM_MODEL if isinstance(layers[0], keras.Model) else _SEQUENTIAL
        kinds = ", ".join(type(each).__name__ for each in given)
        raise ValueError(
            "`inputs` and `outputs` must be those of a functional model: a keras.Input, and the output of layers; "
            f"{way_out}. Received: {kinds}"
        )


def inputs_and_outputs(model):
    """The symbolic inputs and outputs of a functional or Sequential model.

    Args:
        model: a `keras.Model`.

    Returns:
        (inputs, outputs), with the model's own nesting.

    Raises:
        ValueError: for any other object, and for a model with a training step or loss of its own, which would be lost.
    """
    if not isinstance(model, keras.Model):
        way_out = _AROUND if isinstance(model, keras.Layer) else _SEQUENTIAL
        raise ValueError(
            f"`model` must be a functional or Sequential keras.Model; {way_out}. Received: {type(model).__name__}"
        )
    own = [name for name in ("call", "compute_loss", "train_step") if not _is_shared(getattr(model, name))]
    if "call" in own:
        raise ValueError(
            f"`model` must be functional or Sequential, without a `call` of its own; {_AROUND}. "
            f"Received: {type(model).__name__}"
        )
    if own:
        raise ValueError(
            f"`model` must use Keras' own training step and loss, because only its layers are shared: its own {own} "
            "would be lost; noisy_sgd.PrivateModel(model.input, model.output) trains without it. "
            f"Received: {type(model).__name__}"
        )
    try:
        if isinstance(model, keras.Sequential):
            return model.inputs[0], model.outputs[0] if len(model.outputs) == 1 else model.outputs
        return model.input, model.output
    except (AttributeError, ValueError):
        raise ValueError(
            "`model` must know the shape of its inputs: put keras.Input(shape) first, or call `build`. "
            f"Received: {type(model).__name__} {model.name!r}, which is not built"
        ) from None


def _is_shared(method) -> bool:
    return method.__module__.split(".")[0] in ("keras", "noisy_sgd")
