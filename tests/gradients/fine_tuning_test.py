"""What people fine-tune, on the fast engine, against a loop over examples: networks as Keras' examples write them."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import ops

import noisy_sgd
from noisy_sgd.gradients import clipping
from noisy_sgd.gradients.engines import book_keeping, vectorized
from tests import oracles

L = keras.layers
BOUND, WORDS, LENGTH, WIDTH = 0.05, 11, 6, 4


class TokenAndPositionEmbedding(L.Layer):
    """Positions without an axis of examples, as in Keras' examples of text classification and generation."""

    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.tokens = L.Embedding(WORDS, WIDTH, mask_zero=True, dtype=dtype)
        self.positions = L.Embedding(LENGTH + 2, WIDTH, dtype=dtype)

    def build(self, shape):
        for layer in (self.tokens, self.positions):
            layer.build(shape)

    def call(self, inputs):
        return self.tokens(inputs) + self.positions(ops.arange(0, ops.shape(inputs)[-1], 1))

    def compute_mask(self, inputs, mask=None):
        return self.tokens.compute_mask(inputs)


class PatchEncoder(L.Layer):
    """Positions [1, T], projected by a layer of their own, beside projected patches."""

    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.project, self.mix = L.Dense(WIDTH, dtype=dtype), L.Dense(WIDTH, activation="tanh", dtype=dtype)
        self.positions = L.Embedding(4, WIDTH, dtype=dtype)

    def build(self, shape):
        self.project.build(shape)
        self.positions.build((1, 4))
        self.mix.build((1, 4, WIDTH))

    def call(self, inputs):
        return self.project(inputs) + self.mix(self.positions(ops.expand_dims(ops.arange(4), 0)))


def block(x, dtype, causal=False):
    attended = L.MultiHeadAttention(2, 2, dtype=dtype)(x, x, use_causal_mask=causal)
    x = L.LayerNormalization(epsilon=1e-6, dtype=dtype)(L.Add(dtype=dtype)([x, attended]))
    hidden = L.Dense(WIDTH, dtype=dtype)(L.Dense(5, activation="gelu", dtype=dtype)(x))
    return L.LayerNormalization(epsilon=1e-6, dtype=dtype)(L.Add(dtype=dtype)([x, hidden]))


def classifier(dtype):
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = L.GlobalAveragePooling1D(dtype=dtype)(block(TokenAndPositionEmbedding(dtype)(inputs), dtype))
    return keras.Model(inputs, L.Dense(2, dtype=dtype)(x))


def generator(dtype):
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = block(TokenAndPositionEmbedding(dtype)(inputs), dtype, causal=True)
    return keras.Model(inputs, [L.Dense(WORDS, dtype=dtype)(x), x])


def tied_generator(dtype):
    inputs = keras.Input((LENGTH,), dtype="int32")
    words = L.ReversibleEmbedding(WORDS, WIDTH, dtype=dtype)
    return keras.Model(inputs, words(block(words(inputs), dtype, causal=True), reverse=True))


def vision_transformer(dtype):
    inputs = keras.Input((4, 4, 2), dtype="float64")
    patches = L.Reshape((4, 8), dtype=dtype)(inputs)
    x = L.Flatten(dtype=dtype)(block(PatchEncoder(dtype)(patches), dtype))
    return keras.Model(inputs, L.Dense(2, dtype=dtype)(x))


NETWORKS = {
    "classifier": classifier,
    "generator": generator,
    "tied_generator": tied_generator,
    "vision_transformer": vision_transformer,
}


def built(name, dtype="float64"):
    keras.utils.set_random_seed(1)
    model = NETWORKS[name](dtype)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype.startswith("float"):
            weight.assign(weight.numpy() + 0.2 * rng.normal(size=weight.shape))
    return model


def data(model, examples):
    """Random inputs; sequences of words have ragged lengths, padded with 0."""
    rng = np.random.default_rng(2)
    if model.input.dtype == "int32":
        x = rng.integers(1, WORDS, (examples, *model.input.shape[1:])).astype(np.int32)
        for i in range(examples):
            x[i, LENGTH - i % 4 :] = 0
    else:
        x = rng.normal(size=(examples, *model.input.shape[1:]))
    return x, rng.normal(size=(examples,))


def loss(y, predictions):
    """Of any number of outputs of any shapes, one loss per example."""
    parts = []
    for number, output in enumerate(tf.nest.flatten(predictions)):
        flat = tf.cast(tf.reshape(output, [tf.shape(y)[0], -1]), y.dtype)
        parts.append(tf.reduce_mean(tf.square(flat - y[:, None]), axis=1) / (1 + number))
    return tf.add_n(parts)


def compiled(model, views=1, **options):
    def step(x, y):
        result = book_keeping.clipped_sum(model, loss, x, y, clip=clipping.flat(BOUND), views=views)
        return result.norms, result.values

    return tf.function(step, autograph=False, **options)


class FineTuningTest(parameterized.TestCase):
    def assert_equal_to_loop(self, model, examples, *, rtol=1e-9, **options):
        x, y = data(model, examples)
        found = compiled(model, **options)(x, y)
        errors = oracles.relative_errors(found, oracles.clipped_sum(model, loss, x, y, BOUND))
        self.assertLess(max(errors), rtol)

    @parameterized.product(name=list(NETWORKS), examples=[1, 3, 8])
    def test_a_step_equals_the_loop_over_examples(self, name, examples):
        self.assert_equal_to_loop(built(name), examples)

    @parameterized.parameters("tied_generator", "vision_transformer")
    def test_a_step_compiled_by_xla_equals_the_loop(self, name):
        self.assert_equal_to_loop(built(name), 3, jit_compile=True)

    @parameterized.parameters(*NETWORKS)
    def test_partly_frozen(self, name):
        model = built(name)
        # Every other layer that has weights, attention and embeddings among them.
        for number, layer in enumerate(layer for layer in model._flatten_layers() if layer._trainable_variables):
            layer.trainable = number % 2 == 1
        self.assertNotEmpty(model.trainable_weights)
        self.assert_equal_to_loop(model, 3)

    @parameterized.parameters(*NETWORKS)
    def test_norms_are_those_of_what_is_summed_under_bfloat16(self, name):
        exact, model = built(name), built(name, "mixed_bfloat16")
        model.set_weights(exact.get_weights())
        x, y = data(exact, 1)
        norms, values = compiled(model)(x, y.astype(np.float32))
        self.assertEqual({value.dtype for value in values}, {tf.float32})
        np.testing.assert_allclose(oracles.length(values), min(BOUND, norms[0]), rtol=1e-5)
        np.testing.assert_allclose(norms, oracles.clipped_sum(exact, loss, x, y, BOUND)[0], rtol=0.1)

    @parameterized.parameters(*NETWORKS)
    def test_views_and_an_unknown_number_of_examples(self, name):
        model = built(name)
        x, y = data(model, 6)
        x, y = x.reshape(3, 2, *x.shape[1:]), y[:3]
        expected = vectorized.clipped_sum(model, loss, x, y, clip=clipping.flat(BOUND), views=2)
        specs = [tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in (x, y)]
        found = compiled(model, views=2).get_concrete_function(*specs)(tf.constant(x), tf.constant(y))
        expected = np.asarray(expected.norms), [np.asarray(value) for value in expected.values]
        self.assertLess(max(oracles.relative_errors(found, expected)), 1e-9)


class LoraTrainingTest(absltest.TestCase):
    def test_only_the_small_matrices_move_and_are_saved_loaded_and_merged(self):
        keras.utils.set_random_seed(1)
        inputs, adapted = keras.Input((4,)), L.Dense(6, activation="tanh", name="adapted")
        model = noisy_sgd.PrivateModel(inputs, L.Dense(2)(adapted(inputs)))
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(16, 4)).astype(np.float32), rng.normal(size=(16, 2)).astype(np.float32)

        def compile_and_fit():
            model.compile(noisy_sgd.DPSGD(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, batch_size=8), "mse")
            model.fit(x, y, batch_size=8, verbose=0)

        compile_and_fit()
        adapted.enable_lora(2)
        with self.assertRaisesRegex(ValueError, "`compile` must be called again, .*enable_lora.*adapted/lora_kernel_a"):
            model.fit(x, y, batch_size=8, verbose=0)
        weights = {weight.name: weight for weight in adapted.weights}
        before = {name: weight.numpy().copy() for name, weight in weights.items()}
        compile_and_fit()
        self.assertEqual(
            {name for name, weight in weights.items() if not np.array_equal(weight.numpy(), before[name])},
            {"bias", "lora_kernel_a", "lora_kernel_b"},
        )

        path = self.create_tempdir().full_path + "/adapted.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)
        # Keras merges what it saves; a model without LoRA takes it.
        plain = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="tanh"), L.Dense(2)])
        kernel = adapted.kernel
        plain.set_weights([kernel, adapted.bias, *model.layers[-1].get_weights()])
        np.testing.assert_allclose(plain(x), model(x), rtol=1e-6)
        self.assertGreater(np.abs(kernel - before["kernel"]).max(), 1e-4)


if __name__ == "__main__":
    absltest.main()
