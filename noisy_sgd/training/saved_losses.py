"""The configuration of Keras' losses with all their arguments, for saved and cloned models.

    saved_losses.serialize(keras.losses.Huber(0.3))["config"]["delta"]    # 0.3

Some of Keras' own classes (seen in 3.15) leave arguments out of `get_config`: a saved `Huber(0.3)` would be
loaded as `Huber(1.0)`.
"""

import inspect

import keras

from noisy_sgd import keras_internals


def serialize(loss):
    """The configuration from which Keras makes the same losses again.

    Args:
        loss: the `loss` of Keras' `compile`, any nest.
    """
    return keras.tree.map_structure(_in_full, loss)


def _in_full(loss):
    saved = keras.saving.serialize_keras_object(loss)
    if isinstance(loss, keras.losses.Loss) and type(loss).__module__.startswith("keras."):
        taken = inspect.signature(type(loss)).parameters
        given = {name: value for name, value in keras_internals.loss_arguments(loss).items() if name in taken}
        saved["config"] = keras.saving.serialize_keras_object(given) | saved["config"]
    return saved
