"""Initial weights as a pure function of one seed: every layer's own seed comes from the model's and the layer's name.

Keras draws a layer's weights from the integer seed of its initializer alone, so that two layers of equal shape and
equal seed start with equal weights. Here the seed depends on the layer's name: two layers start with different weights,
and a layer's initial weights stay the same when another layer is added before it.

    keras.initializers.HeNormal(seed=initialization.layer_seed(7, "stem"))
"""

from noisy_sgd import keys


def layer_seed(seed: int | None, layer_name: str) -> int | None:
    """The 32-bit seed of one layer's initializer; None, Keras' own choice, where the model has no seed.

    Args:
        seed: seed of the model, an integer of any size, or None.
        layer_name: name of the layer, unique within its model.

    Returns:
        An integer in [0, 2**32), or None.
    """
    if seed is None:
        return None
    return keys.number(keys.derive(seed, "initialization"), layer_name)
