"""A visitor's addition: a layer of their own, and a rule for it, outside the package, by one public call."""

import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.gradients import automatic_rule, layer_calls, layer_rules
from tests import oracles

BOUND, LEARNING_RATE = 0.3, 0.5


class Gain(keras.layers.Layer):
    """A layer that the package does not know: y = x * gain."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.gain


def by_copies():
    return layer_rules.scale.rule(lambda layer, inputs, weights: inputs * weights["gain"])


def by_formula():
    def forward(tape, layer, inputs):
        outputs = inputs * layer_rules.constant(layer.gain)
        return layer_rules.Traced(outputs=outputs, taps=[outputs], saved=inputs)

    def gradients(layer, calls, microbatch):
        products = [microbatch.sum_views(call.tap_gradients[0] * call.saved) for call in calls]
        return [layer_rules.kept(layer.gain, tf.add_n(products))]

    return noisy_sgd.gradients.Rule(forward=forward, gradients=gradients)


def private_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(Gain()(keras.layers.Dense(4)(inputs))))
    return model, noisy_sgd.DPSGD(LEARNING_RATE, BOUND, 0.0, 8)


class VisitorTest(parameterized.TestCase):
    @parameterized.parameters(by_copies, by_formula, None)
    def test_a_rule_of_ones_own_or_none_serves_a_private_step(self, made):
        rule = automatic_rule.RULE
        if made is not None:
            rule = made()
            noisy_sgd.gradients.register(Gain, rule)
            self.addCleanup(layer_rules.shared.registry._RULES.pop, Gain)

        model, optimizer = private_model()
        self.assertIs(dict(layer_calls.layers_with_weights(model))[model.layers[2]], rule)
        model.compile(optimizer, "mse", engine="book_keeping")
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
        before = model.get_weights()
        norms, sums = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
        self.assertGreater(norms.max(), BOUND)
        model.train_on_batch(x, y)
        for found, weight, total in zip(model.get_weights(), before, sums, strict=True):
            np.testing.assert_allclose(found, weight - LEARNING_RATE * total / 8, atol=1e-6)

    def test_help_lists_the_public_names_and_importing_is_light(self):
        code = (
            "import sys, noisy_sgd; listed = dir(noisy_sgd.gradients); assert 'tensorflow' not in sys.modules; "
            "assert set(noisy_sgd.gradients.__all__) <= set(listed); "
            "print(*[getattr(noisy_sgd.gradients, name).__doc__[:9] for name in noisy_sgd.gradients.__all__])"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertNotEmpty(result.stdout)
        self.assertIn("register", noisy_sgd.gradients.__doc__)
        self.assertContainsSubset({"clipped_gradient_sum", "register", "Rule"}, noisy_sgd.gradients.__all__)
        with self.assertRaisesRegex(AttributeError, "has no attribute 'registr'"):
            _ = noisy_sgd.gradients.registr


if __name__ == "__main__":
    absltest.main()
