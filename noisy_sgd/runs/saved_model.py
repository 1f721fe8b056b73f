"""A saved functional Keras model, as a network for the images of a run: checked, and fed the pixels that it expects.

Data have pixels in a range of their own (MNIST's from 0 to 255). Most saved models expect them in [0, 1], unless they
begin with a Rescaling or Normalization layer. What is expected becomes the first layer of the trained network, so that
`model.keras` maps the data's pixels to logits in any case, and trains on in the same way when it is given again.

    network, fed = saved_model.load("mine.keras", images, pixel_range="auto", model_class=keras.Model)
    print(fed)      # mine.keras gets pixels from 0 to 1, the data's from 0 to 255 scaled; ...
"""

import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from noisy_sgd import config

# Layers that leave a pixel's value as it is, or nearly.
_KEEPING = (
    "InputLayer", "Identity", "Reshape", "Flatten", "Permute", "ZeroPadding2D", "Cropping2D", "Resizing", "CenterCrop",
    "RandomCrop", "RandomFlip", "RandomTranslation", "RandomRotation", "RandomZoom", "Dropout", "SpatialDropout2D",
    "Cast", "Transpose", "ExpandDims",
)  # fmt: skip
_SCALING = ("Rescaling", "Normalization")
# Operations on the input and a constant, such as `inputs / 255`.
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")


def load(path: str, images, *, pixel_range: str, model_class: type[keras.Model]) -> tuple[keras.Model, str]:
    """Loads a model whose weights are taken as they are.

    Args:
        path: of a .keras file.
        images: the image set, with `image_shape`, `num_classes` and `pixel_range`.
        pixel_range: of `config.Model`.
        model_class: called with inputs and outputs.

    Returns:
        The network, from the data's pixels to logits, and a sentence that says what the saved model gets of them.

    Raises:
        ValueError: for a file that is no Keras model, or a model that is not functional or does not fit the images.
    """
    loaded = _loaded(path)
    _check(path, loaded, tuple(images.image_shape), images.num_classes)
    (inputs,), (outputs,) = loaded.inputs, loaded.outputs
    low, high = images.pixel_range
    chosen, scaling = config.pixel_bounds(pixel_range), _begins_with_scaling(loaded.get_config())
    whole = not keras.backend.is_float_dtype(inputs.dtype)
    if chosen is not None and whole:
        constraint = f"cannot be given to a model whose inputs are {inputs.dtype}"
        config.require(False, "pixel_range", constraint, pixel_range, "leave it out")
    if chosen is None and pixel_range == "auto" and not scaling and not whole:
        chosen = (0.0, 1.0)
    name, given, way_out = pathlib.Path(path).name, f"from {low:g} to {high:g}", "`--pixel_range` chooses otherwise"
    if chosen is None:
        fed = f"{name} gets the pixels as they are, {given}; {way_out}."
    else:
        fed = f"{name} gets pixels from {chosen[0]:g} to {chosen[1]:g}, the data's {given} scaled; {way_out}."
    if whole or (chosen is None and scaling):
        return model_class(inputs, outputs), fed
    # Also where nothing is scaled: the trained network then says by its first layer that it takes the data's pixels.
    scale = 1.0 if chosen is None else (chosen[1] - chosen[0]) / (high - low)
    offset = 0.0 if chosen is None else chosen[0] - low * scale
    pixels = keras.Input(images.image_shape, dtype=inputs.dtype, name=_free(loaded, "image"))
    layer = keras.layers.Rescaling(scale, offset, dtype=inputs.dtype, name=_free(loaded, "pixels"))
    scaled = layer(pixels)
    if not isinstance(loaded, keras.Sequential):
        # The one input may be in a list or a dictionary.
        scaled = keras.tree.pack_sequence_as(loaded.input, [scaled])
    # Not `loaded(...)`: its layers are to be those of the network, one by one.
    return model_class(pixels, keras.tree.flatten(loaded.call(scaled))[0]), fed


def _loaded(path: str) -> keras.Model:
    place = pathlib.Path(path)
    config.require(place.exists(), "model", "must name a file that exists", path, "train and save one first")
    way_out = "save one with model.save('mine.keras')"
    a_zip = place.is_file() and zipfile.is_zipfile(place)
    config.require(a_zip, "model", "must be a Keras model, which this file is not", path, way_out)
    try:
        return keras.models.load_model(path, compile=False)
    # Keras raises whatever its parts do: TypeError for a class that it does not know, KeyError for another zip.
    except Exception as error:
        text = " ".join(str(error).split())
        unknown = re.search(r"Could not locate (class|function) '\w+'", text)
        reason = unknown[0] if unknown else text.split(". ")[0].rstrip(".")[:300]
        raise config.ConfigError(
            f"`--model` must be a Keras model that can be loaded, of layers that are known here (Received: "
            f"model={path}): {reason}"
        ) from error


def _check(path: str, loaded: keras.Model, shape: tuple[int, ...], num_classes: int) -> None:
    functional = isinstance(loaded, keras.Model) and getattr(loaded, "inputs", None) is not None
    functional = functional and getattr(loaded, "outputs", None) is not None
    way_out = "rebuild it with keras.Model(inputs, outputs)"
    config.require(functional, "model", "must be a functional Keras model", path, way_out)
    single = len(loaded.inputs) == 1 and len(loaded.outputs) == 1
    found = f"it has {len(loaded.inputs)} inputs and {len(loaded.outputs)} outputs"
    config.require(single, "model", "must have one input and one output", path, found)
    taken, given = tuple(loaded.inputs[0].shape[1:]), tuple(loaded.outputs[0].shape[1:])
    constraint = f"must map images of shape {shape} to {num_classes} logits"
    fits = taken == shape and given == (num_classes,)
    config.require(fits, "model", constraint, path, f"it maps {taken} to {given}")


def _begins_with_scaling(described: dict[str, Any]) -> bool:
    """Whether the configuration of a model scales its input first, before or within its first other layer."""
    layers = described["layers"]
    functional = "input_layers" in described
    as_given = {""} if not functional else set()
    for layer in layers:
        kind, name = layer["class_name"], layer["config"].get("name")
        # A sequential model has no record of who reads whom: each layer reads the one before.
        sources = list(_sources(layer.get("inbound_nodes"))) if functional else [""]
        if kind != "InputLayer" and not as_given.intersection(sources):
            continue
        if kind in _SCALING or (kind in _ARITHMETIC and functional and len(sources) == 1):
            return True
        if "layers" in layer["config"]:
            return _begins_with_scaling(layer["config"])
        if kind in _KEEPING:
            as_given.add(name)
        elif not functional:
            return False
    return False


def _sources(node: Any) -> Iterator[str]:
    """The names of the layers whose outputs an entry of a configuration reads."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]["keras_history"][0]
        else:
            for value in node.values():
                yield from _sources(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _sources(value)


def _free(model: keras.Model, name: str) -> str:
    """The name, or one like it that no layer has."""
    taken = {layer.name for layer in model.layers}
    while name in taken:
        name += "_"
    return name
