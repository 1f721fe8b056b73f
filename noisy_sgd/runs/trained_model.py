"""Saves the trained network as a file that Keras loads.

The file holds the architecture and the weights. It does not hold the optimizer, the noise key or the metrics. The
network maps the unscaled pixels of the data to logits.

    trained_model.save("runs/first/model.keras", model)
    import noisy_sgd.models                                       # registers the layers that Keras does not have
    keras.models.load_model("runs/first/model.keras").predict(images)
"""

import os
import pathlib

import keras

from noisy_sgd import files

WEIGHTS, AVERAGE = "model.keras", "model_ema.keras"


def save(path: str | os.PathLike, model: keras.Model) -> None:
    """Writes a functional model's architecture and current weights; an interrupted call leaves no incomplete file.

    Args:
        path: a local file whose name ends in .keras; an existing file is replaced.
        model: a functional model. It is saved as a plain `keras.Model` without optimizer and loss.

    Raises:
        ValueError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    network = keras.Model(model.input, model.output, name=model.name)
    # The name is always the same, so that the next writer replaces the file of a writer that was killed.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    with files.naming(path, "written"):
        files.fill(path, temporary, lambda: network.save(temporary))
