"""Registering rules, the example in the documentation, and what a rule refuses while it is traced."""

import inspect
import textwrap

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping
from noisy_sgd.gradients.layer_rules import scale
from noisy_sgd.gradients.layer_rules.shared import registry
from noisy_sgd.models import normalizer_free

L = keras.layers
BOUND = 0.5


class Gain(L.Layer):
    """A user's layer: y = x * gain."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.gain


def squared_error(y, predictions):
    return tf.reduce_sum(tf.square(predictions - y), axis=1)


def documented(module):
    """The example in a module's documentation: its indented lines."""
    lines = inspect.getdoc(module).splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))


class RegistryTest(parameterized.TestCase):
    @parameterized.product(module=[registry, scale], shape=[(6,), (8, 6), (2, 3, 6)])
    def test_the_documented_example_serves_inputs_of_any_rank(self, module, shape):
        exec(documented(module), {"tf": tf, "layer_rules": layer_rules, "scale": scale, "Gain": Gain})
        keras.utils.set_random_seed(0)
        inputs = keras.Input(shape, dtype="float64")
        outputs = L.Dense(2, dtype="float64")(L.Flatten(dtype="float64")(Gain(dtype="float64")(inputs)))
        model = keras.Model(inputs, outputs)
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(8, *shape)), generator.normal(size=(8, 2))
        result = book_keeping.clipped_sum(model, squared_error, x, y, clip=clipping.flat(BOUND))
        norms = []
        for i in range(8):
            with tf.GradientTape() as tape:
                loss = squared_error(y[i : i + 1], model(x[i : i + 1]))
            norms.append(tf.linalg.global_norm(tape.gradient(loss, [w.value for w in model.trainable_weights])))
        np.testing.assert_allclose(result.norms, norms, rtol=1e-9)

    def test_register_takes_rules_only(self):
        with self.assertRaisesRegex(ValueError, "`rule` must be a layer_rules.Rule.*Received: rule=3"):
            layer_rules.register(Gain, 3)

    def test_a_missing_rule_says_where_to_import_from(self):
        with self.assertRaisesRegex(layer_rules.NoRuleError, "from noisy_sgd.gradients import layer_rules"):
            layer_rules.rule_for(L.ConvLSTM1D(2, 2))

    @parameterized.parameters(
        ((None, 4), lambda: L.Conv1D(5, 3)),
        ((None, None, 4), lambda: L.Conv2D(5, 3)),
        ((None, 4, 4, 2), lambda: L.Conv3D(5, 3)),
        ((None, None, 4), lambda: L.DepthwiseConv2D(3)),
        ((None, None, 4), lambda: normalizer_free.WeightStandardizedConv2D(5, 2)),
    )
    def test_unknown_sizes_are_refused_and_auto_falls_back(self, shape, make):
        inputs = keras.Input(shape)
        outputs = make()(inputs)
        model = keras.Model(inputs, keras.ops.mean(outputs, axis=list(range(1, len(shape)))))
        specs = [tf.TensorSpec([None, *shape]), tf.TensorSpec([None, outputs.shape[-1]])]

        def norms(x, y):
            return book_keeping.clipped_sum(model, squared_error, x, y, clip=clipping.flat(BOUND)).norms

        with self.assertRaisesRegex(layer_rules.NoRuleError, "unknown size"):
            tf.function(norms, autograph=False).get_concrete_function(*specs)
        with self.assertLogs(level="WARNING") as logged:
            step = tf.function(
                lambda x, y: clipped_sum.clipped_gradient_sum(model, squared_error, x, y, l2_norm_clip=BOUND).norms,
                autograph=False,
            ).get_concrete_function(*specs)
        self.assertIn("unknown size", "".join(logged.output))
        generator = np.random.default_rng(0)
        x = generator.normal(size=(3, *(size or 5 for size in shape))).astype(np.float32)
        y = generator.normal(size=(3, outputs.shape[-1])).astype(np.float32)
        # The same images in sizes that the trace knows.
        np.testing.assert_allclose(step(tf.constant(x), tf.constant(y)), norms(x, y), rtol=1e-4)

    @parameterized.parameters(
        ((None, 4), lambda: L.Dense(5)),
        ((None, 4), lambda: L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
        ((None, None, 4), lambda: L.GroupNormalization(2)),
        ((None, 4), lambda: L.LayerNormalization()),
        ((None,), lambda: L.Embedding(5, 3)),
    )
    def test_other_rules_serve_unknown_sizes(self, shape, make):
        inputs = keras.Input(shape)
        outputs = make()(inputs)
        model = keras.Model(inputs, keras.ops.mean(outputs, axis=list(range(1, len(outputs.shape) - 1))))

        def norms(x, y):
            return book_keeping.clipped_sum(model, squared_error, x, y, clip=clipping.flat(BOUND)).norms

        specs = [tf.TensorSpec([None, *shape]), tf.TensorSpec([None, outputs.shape[-1]])]
        step = tf.function(norms, autograph=False).get_concrete_function(*specs)
        generator = np.random.default_rng(0)
        x = tf.constant(generator.uniform(0, 4, size=(3, *(size or 5 for size in shape))), tf.float32)
        y = tf.constant(generator.normal(size=(3, outputs.shape[-1])), tf.float32)
        np.testing.assert_allclose(step(x, y), norms(x, y), rtol=1e-5)


if __name__ == "__main__":
    absltest.main()
