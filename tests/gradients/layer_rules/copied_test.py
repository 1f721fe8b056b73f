import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping
from tests import oracles

L = keras.layers
BOUND = 0.1


class Turned(L.Layer):
    """Its weight [size, size] meets inputs of two axes, so copies of it do not broadcast as it does."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], shape[-1]))

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


class Summed(L.Layer):
    """Reads its weight in a way that mixes the copies."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * keras.ops.sum(self.gain)


CASES = {
    "prelu": lambda x: L.PReLU(dtype="float64")(x),
    "prelu_shared": lambda x: L.PReLU(shared_axes=[1], dtype="float64")(x),
    "attention": lambda x: L.Attention(use_scale=True, dtype="float64")([x, x * 0.5]),
    "attention_causal": lambda x: L.Attention(use_scale=True, dtype="float64")([x, x], use_causal_mask=True),
    "attention_concat": lambda x: L.Attention(score_mode="concat", dtype="float64")([x, x]),
    "attention_concat_scale": lambda x: L.Attention(True, score_mode="concat", dtype="float64")([x, x[:, :3]]),
    "attention_masked": lambda x: L.Attention(use_scale=True, dtype="float64")([x, L.Masking(dtype="float64")(x)]),
    "additive_attention": lambda x: L.AdditiveAttention(dtype="float64")([x, x[:, :3], x[:, 1:4]]),
}


class CopiedTest(parameterized.TestCase):
    @parameterized.parameters(*((case, False) for case in CASES), ("prelu", True), ("attention_concat", True))
    def test_equals_the_loop(self, case, jit_compile):
        model = oracles.between_dense(CASES[case], (5, 3))
        x, y = np.random.default_rng(1).normal(size=(4, 5, 3)), np.random.default_rng(2).normal(size=(4, 2))
        x[1, 3:] = 0

        def step(x, y):
            result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
            return result.norms, result.values

        found = tf.function(step, autograph=False, jit_compile=jit_compile)(x, y)
        expected = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
        self.assertLess(max(oracles.relative_errors(found, expected)), 1e-9)
        # The copies are wanted at all: without them the layer's part of the norm would be missing.
        own = [n for n, weight in enumerate(model.trainable_weights) if "dense" not in weight.path]
        self.assertGreater(oracles.length([expected[1][n] for n in own]), 1e-3 * oracles.length(expected[1]))

    def test_dropout_goes_on_drawing(self):
        layer = L.Attention(use_scale=True, dropout=0.5, dtype="float64")
        model = oracles.between_dense(lambda x: layer([x, x]), (5, 3))
        x, y = np.ones((4, 5, 3)), np.ones((4, 2))
        before = layer.seed_generator.state.numpy().copy()
        book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
        self.assertFalse(np.array_equal(layer.seed_generator.state.numpy(), before))

    @parameterized.parameters((Turned, r"its rule fails.*weight 'kernel'"), (Summed, "something else|rows"))
    def test_a_layer_that_copies_do_not_serve_is_refused(self, layer_class, reason):
        layer_rules.register(layer_class, layer_rules.scale.rule())
        self.addCleanup(layer_rules.shared.registry._RULES.pop, layer_class)
        inputs = keras.Input((3,), dtype="float64")
        model = keras.Model(inputs, L.Dense(2, dtype="float64")(layer_class(dtype="float64")(inputs)))
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            book_keeping.clipped_sum(
                model, oracles.squared_error, np.ones((4, 3)), np.ones((4, 2)), clip=clipping.flat(BOUND)
            )


if __name__ == "__main__":
    absltest.main()
