"""The training under attack: single steps of a small private network from always the same weights.

private = training.Training(noise_multiplier=1.0, clipping="per_layer", microbatch_size=2)
private.updates(x, y, num_steps=3)      # [steps, d]: what each step releases, in units of the clipped sum
"""

import keras
import numpy as np

import noisy_sgd
from noisy_sgd.training import distribution

FEATURES, HIDDEN, CLASSES, BATCH_SIZE = 40, 20, 3, 6
CLIP = 0.5
# So large a step that the weights' own rounding is nothing beside it.
_LEARNING_RATE = 1e4


class Training:
    """A compiled `PrivateModel` whose releases are read off its weights; its noise is that of a test's seed.

    Args:
        noise_multiplier: sigma.
        strategy: "default" or "mirrored", which are two replicas.
        clipping: how norms become factors.
        noise: a recipe of noise. Defaults to independent noise.
        **arguments: of `compile`.
    """

    def __init__(self, noise_multiplier, *, strategy="default", clipping="flat", noise=None, **arguments):
        self.views = arguments.get("augmentation_multiplicity", 1)
        with distribution.make_strategy(strategy).scope():
            keras.utils.set_random_seed(1)
            inputs = keras.Input((FEATURES,))
            hidden = keras.layers.Dense(HIDDEN, activation="tanh")(inputs)
            self.model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(CLASSES)(hidden))
            optimizer = noisy_sgd.DPSGD(
                _LEARNING_RATE * BATCH_SIZE, CLIP, noise_multiplier, BATCH_SIZE, seed=7, clipping=clipping, noise=noise
            )
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.model.compile(optimizer, loss, **arguments)
        self._initial = self.model.get_weights()

    def updates(self, x, y, num_steps=1):
        """The changes of the weights in steps from the initial weights, times minus B over the learning rate."""
        if self.views > 1:
            # The views are the example and smaller copies of it.
            x = np.stack([x / (1 + view) for view in range(self.views)], axis=1)
        found = []
        for _ in range(num_steps):
            self.model.set_weights(self._initial)
            self.model.train_on_batch(x, y)
            pairs = zip(self._initial, self.model.get_weights(), strict=True)
            found.append(np.concatenate([(old.astype(np.float64) - new).ravel() for old, new in pairs]))
        return np.array(found) / _LEARNING_RATE


def data(seed=0):
    """A batch: all examples but the last are alike, so that their gradients add up."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(1, FEATURES)), BATCH_SIZE, axis=0) + 0.1 * rng.normal(size=(BATCH_SIZE, FEATURES))
    y = np.zeros(BATCH_SIZE, np.int32)
    y[-1] = 1
    return x.astype(np.float32), y
