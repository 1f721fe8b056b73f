import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import ops

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping, vectorized
from tests import oracles

L = keras.layers
BOUND, LENGTH, WIDTH = 0.1, 4, 3


class Token(L.Layer):
    """Puts a token before the others; `made` says how it gets its axis of examples from a weight of some shape."""

    def __init__(self, shape, made):
        super().__init__(dtype="float64")
        self.shape, self.made = shape, made

    def build(self, shape):
        self.token = self.add_weight(name="token", shape=self.shape)

    def call(self, tokens):
        return ops.concatenate([self.made(self.token, ops.shape(tokens)[0]), tokens], axis=1)


class Patches(L.Layer):
    """Projects patches, puts a token before them and adds positions, as vision transformers do in one layer."""

    def __init__(self, made, positions=(1, LENGTH + 1, WIDTH)):
        super().__init__(dtype="float64")
        self.made, self.positions, self.project = made, positions, L.Dense(WIDTH, dtype="float64")

    def build(self, shape):
        self.project.build(shape)
        self.token = self.add_weight(name="token", shape=(1, 1, WIDTH))
        self.position = self.add_weight(name="position", shape=self.positions)

    def call(self, patches):
        token = self.made(self.token, ops.shape(patches)[0])
        return ops.concatenate([token, self.project(patches)], axis=1) + self.position


class Biased(L.Layer):
    """Attention whose scores get a bias for each pair of positions; takes two tensors."""

    def build(self, shapes):
        self.bias = self.add_weight(name="bias", shape=(LENGTH, LENGTH))

    def call(self, pair):
        queries, values = pair
        scores = ops.matmul(queries, ops.transpose(values, (0, 2, 1))) + self.bias
        return ops.matmul(ops.softmax(scores), values)


class Gate(L.Layer):
    """A matrix that meets the whole example, and a vector that is normalized first."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(LENGTH * WIDTH, 2))
        self.direction = self.add_weight(name="direction", shape=(2,))

    def call(self, inputs):
        found = ops.matmul(ops.reshape(inputs, (-1, LENGTH * WIDTH)), self.kernel)
        return {"gated": ops.tanh(found) * self.direction / ops.norm(self.direction)}


class Dropping(L.Layer):
    """Draws random numbers in its own call."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=shape[-1:], initializer="ones")
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return keras.random.dropout(inputs * self.gain, 0.5, seed=self.seed)


class Forgetful(L.Layer):
    """Stops the gradient where its weight has more axes than it was built with."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=shape[-1:], initializer="ones")
        self.inner = L.Dense(WIDTH, dtype="float64")
        self.inner.build(shape)

    def call(self, inputs):
        gain = self.gain.value
        return self.inner(inputs) * (gain if len(gain.shape) == 1 else ops.stop_gradient(gain))


class InPython(L.Layer):
    """Multiplies in Python, which cannot be mapped over examples."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        scaled = tf.py_function(lambda x, gain: x * gain, [inputs, self.gain.value], inputs.dtype)
        return tf.ensure_shape(scaled, inputs.shape)


def broadcast(token, examples):
    return ops.broadcast_to(token, (examples, 1, WIDTH))


def repeated(token, examples):
    return ops.repeat(token, examples, axis=0)


CASES = {
    "broadcast": lambda x: Token((1, 1, WIDTH), broadcast)(x),
    "broadcast_vector": lambda x: Token((WIDTH,), broadcast)(x),
    "repeat": lambda x: Token((1, 1, WIDTH), repeated)(x),
    "tile": lambda x: Token((1, 1, WIDTH), lambda token, examples: ops.tile(token, [examples, 1, 1]))(x),
    "repeat_row": lambda x: Token((1, WIDTH), lambda token, examples: repeated(token[None], examples))(x),
    "patches": lambda x: Patches(broadcast)(x),
    "patches_vector": lambda x: Patches(broadcast, positions=(LENGTH + 1, WIDTH))(x),
    "two_tensors": lambda x: Biased(dtype="float64")([x, ops.flip(x, 1)]),
    "matrix": lambda x: Gate(dtype="float64")(x)["gated"],
    "subclass": lambda x: type("Mine", (L.Dense,), {})(2, dtype="float64")(x),
    "called_twice": lambda x: twice(Token((1, 1, WIDTH), repeated), x),
}
COMPILED = ("repeat", "patches", "matrix")


def twice(layer, x):
    return layer(L.Dense(WIDTH, dtype="float64")(layer(x)))


class AutomaticTest(parameterized.TestCase):
    @parameterized.parameters(*((case, False) for case in CASES), *((case, True) for case in COMPILED))
    def test_equals_the_loop(self, case, jit_compile):
        self.assert_equals_the_loop(oracles.between_dense(CASES[case], (LENGTH, WIDTH)), jit_compile)

    @parameterized.parameters("token", "position", "kernel")
    def test_partly_frozen(self, name):
        model = oracles.between_dense(CASES["patches"], (LENGTH, WIDTH))
        (layer,) = (layer for layer in model.layers if isinstance(layer, Patches))
        (frozen,) = (weight for weight in layer.weights if weight.name == name)
        frozen.trainable = False
        self.assertLen(model.trainable_weights, 4 + 4 - 1)
        self.assert_equals_the_loop(model)

    def test_views_are_averaged_before_the_norm(self):
        model = oracles.between_dense(CASES["repeat"], (LENGTH, WIDTH))
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(3, 2, LENGTH, WIDTH)), rng.normal(size=(3, 2))
        found, expected = (
            engine.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND), views=2)
            for engine in (book_keeping, vectorized)
        )
        for one, other in zip([found.norms, *found.values], [expected.norms, *expected.values], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)

    def assert_equals_the_loop(self, model, jit_compile=False):
        def step(x, y):
            result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
            return result.norms, result.values

        compiled = tf.function(step, autograph=False, jit_compile=jit_compile)
        rng = np.random.default_rng(1)
        for examples in (1, 3, 8):
            x, y = rng.normal(size=(examples, LENGTH, WIDTH)), rng.normal(size=(examples, 2))
            expected = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
            self.assertLess(max(oracles.relative_errors(compiled(x, y), expected)), 1e-9)
        # Every layer's own weights have gradients, else a norm would miss nothing without them.
        for weight, total in zip(model.trainable_weights, expected[1], strict=True):
            self.assertGreater(oracles.length([total]), 1e-4, weight.path)

    def test_the_same_for_a_number_of_examples_that_the_trace_does_not_know(self):
        model = oracles.between_dense(CASES["repeat"], (LENGTH, WIDTH))

        def step(x, y):
            result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
            return result.norms, result.values

        signature = [tf.TensorSpec([None, LENGTH, WIDTH], tf.float64), tf.TensorSpec([None, 2], tf.float64)]
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(5, LENGTH, WIDTH)), rng.normal(size=(5, 2))
        found = tf.function(step, autograph=False, input_signature=signature)(x, y)
        expected = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
        self.assertLess(max(oracles.relative_errors(found, expected)), 1e-9)

    def test_a_layer_that_draws_goes_on_drawing_for_every_example(self):
        layer = Dropping(dtype="float64")
        inputs = keras.Input((50,), dtype="float64")
        model = keras.Model(inputs, layer(inputs))
        before = layer.seed.state.numpy().copy()
        result = book_keeping.clipped_sum(
            model, oracles.squared_error, np.ones((3, 50)), np.zeros((3, 50)), clip=clipping.flat(1e3)
        )
        self.assertFalse(np.array_equal(layer.seed.state.numpy(), before))
        self.assertLen(set(map(tuple, result.predictions.numpy())), 3)

    @parameterized.parameters(
        (lambda: Patches(repeated), "its class has no rule, and .*: it fails \\(.*broadcast_to may do in place of"),
        (lambda: InPython(dtype="float64"), "its class has no rule, and .*EagerPyFunc.* would not follow it at once"),
        (lambda: Forgetful(dtype="float64"), "its class has no rule, and .*are others than those of the layer"),
    )
    def test_a_layer_that_copies_do_not_serve_is_refused(self, made, reason):
        layer = made()
        model = oracles.between_dense(layer, (LENGTH, WIDTH))
        x, y = np.ones((3, LENGTH, WIDTH)), np.ones((3, 2))
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason) as caught:
            book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
        self.assertEqual(caught.exception.layer_name, layer.name)

    def test_a_call_that_fails_only_in_training_is_refused_in_the_same_words(self):
        layer = InPython(dtype="float64")
        model, x, y = oracles.between_dense(layer, (LENGTH, WIDTH)), np.ones((3, LENGTH, WIDTH)), np.ones((3, 2))
        reason = "its class has no rule, and .*EagerPyFunc.* would not follow it at once"
        with (
            absltest.mock.patch.object(book_keeping.example_axis, "check", return_value={}),
            self.assertRaisesRegex(layer_rules.NoRuleError, reason) as caught,
        ):
            book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
        self.assertEqual(caught.exception.layer_name, layer.name)


if __name__ == "__main__":
    absltest.main()
