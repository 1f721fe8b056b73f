"""No example's part of the clipped sum is longer than the bound, whatever the example: a search with cancelling terms."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping, layer_rules
from noisy_sgd.gradients.layer_rules import contributions
from noisy_sgd.models import normalizer_free

L = keras.layers
WSConv = normalizer_free.WeightStandardizedConv2D
EXAMPLES = 3
TRIES = 6
EXCESS = 1e-5
ROUTES = ("gram", "formed_twice", "per_example")

LAYERS = {
    "dense": ((64, 32), lambda d: L.Dense(48, use_bias=False, dtype=d)),
    "dense_long": ((256, 24), lambda d: L.Dense(40, use_bias=False, dtype=d)),
    "dense_wide": ((64, 1024), lambda d: L.Dense(128, use_bias=False, dtype=d)),
    "einsum_blocks": ((40, 5, 16), lambda d: L.EinsumDense("atbc,bcd->atbd", (None, 5, 32), dtype=d)),
    "same": ((8, 8, 16), lambda d: L.Conv2D(24, 3, padding="same", use_bias=False, dtype=d)),
    "one_by_one": ((16, 16, 16), lambda d: L.Conv2D(24, 1, use_bias=False, dtype=d)),
    "strided": ((15, 15, 6), lambda d: L.Conv2D(12, 3, strides=2, padding="same", use_bias=False, dtype=d)),
    "dilated": ((12, 12, 6), lambda d: L.Conv2D(12, 3, dilation_rate=2, use_bias=False, dtype=d)),
    "depthwise": ((12, 12, 8), lambda d: L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, dtype=d)),
    "sequence": ((64, 8), lambda d: L.Conv1D(16, 3, padding="causal", use_bias=False, dtype=d)),
    "volume": ((5, 5, 5, 4), lambda d: L.Conv3D(8, 3, padding="same", use_bias=False, dtype=d)),
    "standardized": ((6, 6, 16), lambda d: WSConv(24, 3, padding="same", use_bias=False, dtype=d)),
    "standardized_map": ((16, 16, 4), lambda d: WSConv(8, 3, padding="same", use_bias=False, dtype=d)),
}


def channels(generator, count):
    """A vector: of equal entries, whose sums round to one side, of entries of one sign, or of both."""
    kind = generator.integers(3)
    if kind == 0:
        return np.full(count, generator.uniform(0.5, 1))
    return generator.uniform(0.5, 1, count) if kind == 1 else generator.normal(size=count)


def signs(generator, positions):
    """Factors that add up to about 0: one long run up and down, several short ones, or in random order."""
    first = int(positions * generator.uniform(0.3, 0.7))
    run = np.where(np.arange(positions) < first, 1.0, -first / (positions - first))
    kind = generator.integers(3)
    if kind == 0:
        return run
    if kind == 1:
        return (-1.0) ** (np.arange(positions) // generator.integers(1, positions // 4))
    return generator.permutation(run)


def adversary(generator, inputs, outputs):
    """One example's inputs and output gradients, whose products nearly cancel; three in four."""
    x = np.broadcast_to(channels(generator, inputs[-1]), inputs)
    kind = generator.integers(4)
    if kind == 0:
        x = x * (1 + 10 ** generator.uniform(-6, 0) * generator.normal(size=inputs))
    elif kind == 1:
        x = x * (1 + 10 ** generator.uniform(-5, 0) * generator.integers(0, 2, (*inputs[:-1], 1)))
    along, rest = channels(generator, outputs[-1]), channels(generator, outputs[-1])
    rest = along if generator.integers(2) else rest
    factors = signs(generator, int(np.prod(outputs[:-1]))).reshape(*outputs[:-1], 1)
    z = factors * along + 10 ** generator.uniform(-5, -0.3) * generator.choice([-1, 1]) * rest
    if kind == 3:
        x, z = np.maximum(generator.normal(size=inputs), 0), generator.normal(size=outputs)
    exponent = generator.uniform(-10, 10)
    return x * 10**exponent, z * 10 ** (generator.uniform(0, 5) - exponent), kind == 3


def batch(generator, inputs, outputs):
    """Examples of the adversary, and which of them are ordinary."""
    x, z, ordinary = zip(*(adversary(generator, inputs, outputs) for _ in range(EXAMPLES)), strict=True)
    return np.stack(x).astype(np.float32), np.stack(z).astype(np.float32), np.array(ordinary)


def lengths_in_sum(layer, route, x, z, device):
    """The lengths of each example's part of the sum at C = 1, with norms as computed."""

    def step(x, z):
        saved = {"inputs": x, "outputs": layer(x)} if hasattr(layer, "strides") else x
        call = layer_rules.Call(saved=saved, tap_gradients=[z])
        setting = layer_rules.Setting(units=EXAMPLES, views=1, device=device, dtype=tf.float32)
        (routes,) = (one for one in layer_rules.rule_for(layer).gradients(layer, [call], setting) if type(one) is list)
        found = next(one for one in routes if one.name == route).build()
        _, (factors,) = clipping.norms_and_factors(clipping.flat(1.0), [found.squared_norms], [0], 1)
        return [found.sums(factors * tf.one_hot(i, EXAMPLES), found.tensors) for i in range(EXAMPLES)]

    for each in zip(x, z, strict=True):
        parts = tf.function(step, jit_compile=device == "accelerator", autograph=False)(*map(tf.constant, each))
        yield [np.sqrt(sum(np.sum(np.asarray(value, np.float64) ** 2) for value in part)) for part in parts]


class RoutesTest(parameterized.TestCase):
    pass


if __name__ == "__main__":
    absltest.main()
