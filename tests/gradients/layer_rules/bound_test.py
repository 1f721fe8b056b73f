"""No example's part of the clipped sum is longer than the bound: a search among examples whose terms cancel."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping, layer_rules
from noisy_sgd.gradients.layer_rules.shared import contributions
from noisy_sgd.models import normalizer_free

L = keras.layers
WSConv = normalizer_free.WeightStandardizedConv2D
EXAMPLES = 3
TRIES = 4
EXCESS = 1e-5

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


def parts_of_sum(layer, route, device):
    """A function from inputs and output gradients to each example's own part of the clipped sum at C = 1."""

    def step(x, z):
        saved = {"inputs": x, "outputs": layer(x)} if hasattr(layer, "strides") else x
        call = layer_rules.Call(saved=saved, tap_gradients=[z])
        microbatch = layer_rules.Microbatch(units=EXAMPLES, views=1, device=device, dtype=tf.float32)
        (routes,) = (
            one for one in layer_rules.rule_for(layer).gradients(layer, [call], microbatch) if type(one) is list
        )
        found = {one.name: one for one in routes}[route].build()
        _, (factors,) = clipping.norms_and_factors(clipping.flat(1.0), [found.squared_norms], [0], 1)
        return [found.sums(factors * tf.one_hot(i, EXAMPLES), found.tensors) for i in range(EXAMPLES)]

    return tf.function(step, jit_compile=device == "accelerator", autograph=False)


def length(part):
    return np.sqrt(sum(np.sum(np.asarray(value, np.float64) ** 2) for value in part))


def has_route(layer, route):
    """Inner products serve one block alone, but for matrix products."""
    blocks = layer.groups if hasattr(layer, "groups") else 2 * hasattr(layer, "depth_multiplier")
    return route != "gram" or blocks < 2


class RoutesTest(parameterized.TestCase):
    @parameterized.product(
        case=list(LAYERS),
        way=[("gram", "cpu"), ("formed_twice", "cpu"), ("gram", "accelerator"), ("formed_twice", "accelerator")],
    )
    def test_no_part_is_longer_than_the_bound(self, case, way):
        (route, device), (shape, make) = way, LAYERS[case]
        keras.utils.set_random_seed(0)
        layer = make("float32")
        outputs = tuple(layer(np.zeros((EXAMPLES, *shape), np.float32)).shape[1:])
        if not has_route(layer, route):
            return
        parts_of = parts_of_sum(layer, route, device)
        generator = np.random.default_rng(0)
        for _ in range(TRIES):
            x, z, ordinary = batch(generator, shape, outputs)
            lengths = np.array([length(part) for part in parts_of(tf.constant(x), tf.constant(z))])
            np.testing.assert_array_less(lengths, 1 + EXCESS)
            # Norms of ordinary examples, here all above 1, are those of their gradients, or nearly.
            np.testing.assert_array_less(1 - (EXCESS if device == "cpu" else 1e-3), lengths[ordinary])


class EnginesTest(parameterized.TestCase):
    def check(self, model, engine, jit_compile, draw, clip="flat"):
        def loss(y, predictions):
            return tf.reduce_sum(tf.cast(predictions, y.dtype) * y, axis=list(range(1, len(y.shape))))

        @tf.function(jit_compile=jit_compile, autograph=False)
        def clipped(x, y):
            return clipped_sum.clipped_gradient_sum(
                model, loss, x, y, l2_norm_clip=0.1, clipping=clip, engine=engine
            ).values

        for _ in range(TRIES):
            x, y = draw()
            self.assertLess(length(clipped(tf.constant(x), tf.constant(y))), 0.1 * (1 + EXCESS))

    @parameterized.parameters(
        ("book_keeping", False, "float32", "normalized"),
        ("book_keeping", False, "mixed_bfloat16", "flat"),
        ("book_keeping", False, "float64", "flat"),
        ("book_keeping", True, "float32", "flat"),
        ("vectorized", False, "float32", "flat"),
        ("vectorized", False, "mixed_bfloat16", "flat"),
        ("vectorized", True, "float32", "per_layer"),
    )
    def test_dense_over_positions(self, engine, jit_compile, dtype, clip):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((48, 256), dtype="float64" if dtype == "float64" else "float32")
        model = keras.Model(inputs, L.Dense(256, dtype=dtype)(inputs))
        generator = np.random.default_rng(0)

        def draw():
            x, z, _ = adversary(generator, (48, 256), (48, 256))
            scale = np.abs(x).max()
            return (x[None] / scale).astype(np.float32), (z[None] * scale).astype(np.float32)

        self.check(model, engine, jit_compile, draw, clip)

    @parameterized.product(engine=["book_keeping", "vectorized"], jit_compile=[False, True])
    def test_rows_of_one_id_that_cancel(self, engine, jit_compile):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((200,), dtype="int32")
        model = keras.Model(inputs, L.Embedding(3, 32)(inputs))
        generator = np.random.default_rng(0)

        def draw():
            _, z, _ = adversary(generator, (200, 1), (200, 32))
            return generator.integers(0, 2, (1, 200)).astype(np.int32), (z[None] / np.abs(z).max()).astype(np.float32)

        self.check(model, engine, jit_compile, draw)


class RowSquaresTest(absltest.TestCase):
    def test_of_millions_of_equal_numbers(self):
        rows = np.full((1, 2**22 + 1), 0.9, np.float32)
        expected = np.sum(rows.astype(np.float64) ** 2, axis=1)
        for jit_compile in (False, True):
            found = tf.function(contributions.row_squares, jit_compile=jit_compile)(tf.constant(rows))
            np.testing.assert_allclose(found, expected, rtol=5e-6)

    def test_of_long_rows_in_any_arrangement(self):
        rows = np.random.default_rng(0).normal(size=(2, 3, contributions.ADDED_ONE_BY_ONE + 8)).astype(np.float32)
        expected = np.sum(rows.astype(np.float64) ** 2, axis=-1)
        for jit_compile in (False, True):
            found = tf.function(contributions.row_squares, jit_compile=jit_compile)(tf.constant(rows))
            self.assertEqual(found.shape, expected.shape)
            np.testing.assert_allclose(found, expected, rtol=5e-6)


if __name__ == "__main__":
    absltest.main()
