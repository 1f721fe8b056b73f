"""The trained network as a file that Keras loads: what a run leaves for use elsewhere.

It holds the architecture and the weights, and nothing of the training: no optimizer, no noise key, no metrics. The
network maps pixels, as they are in the data, to logits.

    trained_model.save("runs/first/model.keras", model)
    import noisy_sgd.models                                       # knows the layers that are not Keras' own
    keras.models.load_model("runs/first/model.keras").predict(images)
"""

import os
import pathlib

import keras

from noisy_sgd import files

WEIGHTS, AVERAGE = "model.keras", "model_ema.keras"


def save(path: str | os.PathLike, model: keras.Model) -> None:
    """Writes a functional model's architecture and its weights of the moment, as a whole or not at all.

    Args:
        path: a local file whose name ends in .keras; it is replaced.
        model: a functional model. It is saved as a plain `keras.Model` without optimizer and loss.

    Raises:
        ValueError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    network = keras.Model(model.input, model.output, name=model.name)
    # Always the same name, so that a killed writer's file is replaced by the next one.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    with files.naming(path, "written"):
        files.fill(path, temporary, lambda: network.save(temporary))
