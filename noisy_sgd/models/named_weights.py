"""Weights of a model as a .npz file of named arrays, such as weights converted from another library.

A name is the path of the weight in Keras: "stem/kernel", "stage1_block1_conv1/gain", "logits/bias". Every weight must
be there, in its shape, and nothing else: a silent gap would train from a wrong start.

    numpy.savez("weights.npz", **named_weights.of_timm(state))     # state: name -> array, of timm's nf_resnet50
    model = nf_resnet("nf_resnet50", 1000, convention="timm")
    named_weights.load("weights.npz", model)
"""

import os
import re
import zipfile
from collections.abc import Mapping

import keras
import numpy as np

_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")
_LAYERS = {"downsample.conv": "shortcut", "conv1": "conv1", "conv2": "conv2", "conv3": "conv3"}
_WEIGHTS = {"weight": "kernel", "bias": "bias", "gain": "gain"}


def arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """All weights of a model by their names, for `numpy.savez`."""
    return {weight.path: weight.numpy() for weight in model.weights}


def load(path: str | os.PathLike, model: keras.Model) -> None:
    """Sets all weights of a model to the arrays of a file.

    Args:
        path: of a .npz file.
        model: whose weights have the names and shapes of the arrays.

    Raises:
        ValueError: if the file cannot be read, an array is missing, left over, of another shape, or not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        # A .npy file is an array, which no `with` takes.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"`initial_weights` must be a .npz file of arrays: {path} cannot be read ({reason})"
        ) from error
    expected = {weight.path: weight for weight in model.weights}
    missing, others = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing:
        raise ValueError(
            f"`initial_weights` must hold the weights of {model.name} by their names, but {path} lacks {len(missing)} "
            f"of them, such as {min(missing)}"
        )
    if others:
        raise ValueError(
            f"`initial_weights` must hold the weights of {model.name} alone, but {path} holds {len(others)} others, "
            f"such as {min(others)}"
        )
    for name, weight in expected.items():
        if found[name].shape != tuple(weight.shape):
            raise ValueError(
                f"`initial_weights` must hold {name} in the shape {tuple(weight.shape)} of {model.name}, but {path} "
                f"holds it in the shape {found[name].shape}"
            )
        if found[name].dtype.kind not in "fiu" or not np.isfinite(found[name]).all():
            raise ValueError(f"`initial_weights` must hold finite numbers, but {name} in {path} does not")
    for name, weight in expected.items():
        weight.assign(found[name])


def of_timm(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of timm's nf_resnet50, by the names and in the axes of `nf_resnet`.

    timm's block has no skip gain unless it was made with one; a missing gain is 1.

    Args:
        state: the model's `state_dict`, each entry as a NumPy array.

    Raises:
        ValueError: for a name that the network does not have.
    """
    found = {}
    for name, value in state.items():
        value = np.asarray(value)
        module, _, kind = name.rpartition(".")
        block = _BLOCK.fullmatch(module)
        if kind == "skipinit_gain" and (block := _BLOCK.fullmatch(f"{module}.gain")):
            found[f"stage{int(block[1]) + 1}_block{int(block[2]) + 1}_skip_gain/gain"] = value
            continue
        if module == "stem.conv":
            layer = "stem"
        elif module == "head.fc":
            layer = "logits"
        elif block and block[3] in _LAYERS:
            layer = f"stage{int(block[1]) + 1}_block{int(block[2]) + 1}_{_LAYERS[block[3]]}"
        else:
            raise ValueError(f"`state` must be that of timm's nf_resnet50. Received: an array named {name}")
        if kind == "weight":
            value = value.T if layer == "logits" else value.transpose(2, 3, 1, 0)
        found[f"{layer}/{_WEIGHTS[kind]}"] = value.reshape(-1) if kind == "gain" else value
    for name in [name for name in found if name.endswith("_conv3/kernel")]:
        found.setdefault(name.replace("_conv3/kernel", "_skip_gain/gain"), np.float32(1.0))
    return found
