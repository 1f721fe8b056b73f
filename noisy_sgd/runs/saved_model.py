"""Loads and checks a saved functional Keras model as the network of a run, and scales its pixels to the expected range.

Each data set has its own range of pixels (MNIST: from 0 to 255). Most saved models expect pixels in [0, 1], unless they
begin with a Rescaling or Normalization layer. The scaling becomes the first layer of the trained network. So the file
`model.keras` always maps the data's pixels to logits, and a later run that loads it trains in the same way.

    network, fed = saved_model.load("mine.keras", images, pixel_range="auto", model_class=keras.Model)
    print(fed)      # mine.keras gets pixels from 0 to 1, scaled from the data's range, 0 to 255; ...
"""

import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from noisy_sgd import config

# Layers that do not change the range of the pixels, or change it only slightly.
_KEEPING = (
    "InputLayer", "Identity", "Reshape", "Flatten", "Permute", "ZeroPadding2D", "Cropping2D", "Resizing", "CenterCrop",
    "RandomCrop", "RandomFlip", "RandomTranslation", "RandomRotation", "RandomZoom", "Dropout", "SpatialDropout2D",
    "Cast", "Transpose", "ExpandDims",
)  # fmt: skip
_SCALING = ("Rescaling", "Normalization")
# Operations on the input and a constant, such as `inputs / 255`.
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")


def load(path: str, images, *, pixel_range: str, model_class: type[keras.Model]) -> tuple[keras.Model, str]:
    """Loads a model with its saved weights.

    Args:
        path: path of a .keras file.
        images: the image set, with `image_shape`, `num_classes` and `pixel_range`.
        pixel_range: the value of `config.Model.pixel_range`.
        model_class: class of the network, called with its inputs and outputs.

    Returns:
        The network, which maps the data's pixels to logits, and a sentence that says which pixels the model receives.

    Raises:
        ValueError: if the file is not a Keras model, or the model is not functional or does not fit the images.
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
    name, given, way_out = pathlib.Path(path).name, f"{low:g} to {high:g}", "set `--pixel_range` for another range"
    if chosen is None:
        fed = f"{name} gets unscaled pixels, from {given}; {way_out}."
    else:
        expected = f"{chosen[0]:g} to {chosen[1]:g}"
        fed = f"{name} gets pixels from {expected}, scaled from the data's range, {given}; {way_out}."
    if whole or (chosen is None and scaling):
        return model_class(inputs, outputs), fed
    # Added even with scale 1: the first layer then shows that the trained network takes the data's pixels.
    scale = 1.0 if chosen is None else (chosen[1] - chosen[0]) / (high - low)
    offset = 0.0 if chosen is None else chosen[0] - low * scale
    pixels = keras.Input(images.image_shape, dtype=inputs.dtype, name=_free(loaded, "image"))
    layer = keras.layers.Rescaling(scale, offset, dtype=inputs.dtype, name=_free(loaded, "pixels"))
    scaled = layer(pixels)
    if not isinstance(loaded, keras.Sequential):
        # The single input may be in a list or a dictionary.
        scaled = keras.tree.pack_sequence_as(loaded.input, [scaled])
    # `loaded(...)` would add the model as one layer; the network must have its individual layers.
    return model_class(pixels, keras.tree.flatten(loaded.call(scaled))[0]), fed


def _loaded(path: str) -> keras.Model:
    place = pathlib.Path(path)
    config.require(place.exists(), "model", "must name a file that exists", path, "train and save one first")
    way_out = "save one with model.save('mine.keras')"
    a_zip = place.is_file() and zipfile.is_zipfile(place)
    config.require(a_zip, "model", "must be a file that holds a Keras model", path, way_out)
    try:
        return keras.models.load_model(path, compile=False)
    # Keras raises many types: TypeError for an unknown class, KeyError for a zip file that is not a model.
    except Exception as error:
        text = " ".join(str(error).split())
        unknown = re.search(r"Could not locate (class|function) '\w+'", text)
        reason = unknown[0] if unknown else text.split(". ")[0].rstrip(".")[:300]
        raise config.ConfigError(
            "`--model` must be a Keras model that can be loaded, with layers of Keras or noisy_sgd only "
            f"(Received: model={path}): {reason}"
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
    """Whether a model, by its configuration, scales its input before any layer that changes the range of the pixels."""
    layers = described["layers"]
    functional = "input_layers" in described
    as_given = {""} if not functional else set()
    for layer in layers:
        kind, name = layer["class_name"], layer["config"].get("name")
        # A sequential model does not record the inputs of its layers: each layer reads the previous one.
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
    """The names of the layers whose outputs are the inputs in a configuration entry."""
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
    """The name, with underscores appended until no layer has it."""
    taken = {layer.name for layer in model.layers}
    while name in taken:
        name += "_"
    return name
