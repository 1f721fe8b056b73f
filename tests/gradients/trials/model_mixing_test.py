import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.gradients.trials import model_mixing
from tests import oracles


@keras.saving.register_keras_serializable(package="noisy_sgd_tests")
class MixesInTraining(keras.layers.Layer):
    def call(self, inputs, training=False):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True) if training else inputs


class Keeps(keras.layers.Layer):
    """Changes a variable of Keras' or TensorFlow's in training, by its inputs or as a counter."""

    def __init__(self, by_inputs, raw=False):
        super().__init__(name="keeps")
        self.by_inputs = by_inputs
        self.kept = tf.Variable(0.0, trainable=False, name="raw") if raw else None

    def build(self, input_shape):
        if self.kept is None:
            self.kept = self.add_weight(name="kept", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.kept.assign(0.9 * self.kept + (keras.ops.mean(inputs) if self.by_inputs else 1.0))
        return inputs


@keras.saving.register_keras_serializable(package="noisy_sgd_tests")
class Slope(keras.layers.Layer):
    """The derivative of its layer's outputs by the inputs."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(3, activation="tanh")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = self.inner(inputs)
        return tape.gradient(outputs, inputs)


class MakesALayer(keras.layers.Layer):
    def build(self, input_shape):
        self.inner = keras.layers.Dense(2)
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def equals(x):
    """How many examples are as each one."""
    distances = tf.reduce_sum(tf.square(x[:, None] - x[None]), axis=2)
    return tf.reduce_sum(tf.cast(distances < 1e-9, x.dtype), axis=1, keepdims=True)


def centered_beyond(count):
    return lambda x: x - tf.reduce_mean(x, axis=0) * tf.cast(tf.shape(x)[0] > count, x.dtype)


def divided(x):
    return x / tf.cast(tf.shape(x)[0], x.dtype)


ALONE = {
    "derivative": lambda x: Slope()(x),
    "derivative and dropout": lambda x: keras.layers.Dropout(0.5)(Slope()(x)),
    "noise": lambda x: keras.layers.GaussianNoise(0.5)(x),
    "fixed noise": lambda x: keras.layers.Lambda(lambda t: t + tf.random.stateless_normal(tf.shape(t), [1, 2]))(x),
    "nearest of a code": lambda x: keras.ops.cast(keras.ops.argmax(keras.layers.Dense(9)(x), axis=1), "float32"),
    "attention": lambda x: keras.layers.MultiHeadAttention(1, 2)(*[keras.layers.Reshape((2, 2))(x)] * 2),
}
MIXING = {
    "beyond four": centered_beyond(4),
    "beyond five": centered_beyond(5),
    "equal ones": lambda x: x * equals(x),
    "the largest": lambda x: x / tf.reduce_max(tf.abs(x)),
    "the last": lambda x: x - x[-1:],
    "by their number": divided,
    "by their number, dropped out": (keras.layers.Dropout(0.5), divided),
    "derivative of all": (Slope(), centered_beyond(0)),
}


class IndependenceTest(absltest.TestCase):
    def test_models_that_treat_examples_alone_pass_outside_and_inside_a_trace(self):
        for name, function in ALONE.items():
            with self.subTest(name):
                model = oracles.model_of(function)
                model_mixing.check(model, model.input)
                other = oracles.model_of(function)
                tf.function(lambda x, model=other: model_mixing.check(model, x), autograph=False)(tf.ones([2, 4]))

    def test_models_that_mix_some_examples_only_are_refused(self):
        for name, function in MIXING.items():
            with self.subTest(name):
                layers = [f if isinstance(f, keras.Layer) else keras.layers.Lambda(f) for f in np.ravel(function)]
                model = keras.Sequential([*layers, keras.layers.Dense(2)])
                with self.assertRaisesRegex(ValueError, "treat every example alone"):
                    model_mixing.check(model, np.ones((3, 4), np.float32))

    def test_gradients_inside_the_model_are_a_loops(self):
        keras.utils.set_random_seed(1)
        model = oracles.model_of(lambda x: keras.layers.Dense(2)(Slope()(x)))
        x, y = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)

        def loss_fn(y, predictions):
            return tf.reduce_sum(tf.square(predictions - y[:, :2]), axis=1)

        expected, norms = [np.zeros(w.shape) for w in model.trainable_weights], []
        for i in range(5):
            with tf.GradientTape() as tape:
                loss = loss_fn(y[i : i + 1], model(x[i : i + 1]))
            slopes = tape.gradient(loss, [w.value for w in model.trainable_weights], unconnected_gradients="zero")
            norms.append(np.sqrt(sum(np.sum(np.square(slope)) for slope in slopes)))
            expected = [e + min(1.0, 3.0 / norms[-1]) * slope for e, slope in zip(expected, slopes, strict=True)]
        self.assertBetween(3.0, np.min(norms), np.max(norms))
        for engine in ("auto", "vectorized"):
            found = clipped_sum.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=3.0, engine=engine)
            np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
            for value, reference in zip(found.values, expected, strict=True):
                np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)

    def test_a_model_is_tried_for_inputs_of_each_kind(self):
        class ByRank(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(2)

            def call(self, inputs):
                if len(inputs.shape) == 3:
                    inputs = inputs - keras.ops.mean(inputs, axis=0, keepdims=True)
                return self.dense(inputs)

        model = ByRank()
        model_mixing.check(model, np.ones((3, 4), np.float32))
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, np.ones((3, 2, 4), np.float32))

    def test_a_strategy_and_a_policy_go_along(self):
        strategy, policy = tf.distribute.MirroredStrategy(["CPU:0"]), keras.config.dtype_policy()
        try:
            keras.config.set_dtype_policy("mixed_bfloat16")
            with strategy.scope():
                model = keras.Sequential([keras.layers.Dense(2), MakesALayer()])
                model_mixing.check(model, np.ones((3, 4), np.float32))
        finally:
            keras.config.set_dtype_policy(policy)
        self.assertEqual(model.layers[1].inner.compute_dtype, "bfloat16")
        for weight in model.weights:
            self.assertTrue(strategy.extended.variable_created_in_scope(weight.value))

    def test_models_that_mix_examples_are_refused(self):
        dense = keras.layers.Dense(3)
        for function in (
            lambda x: dense(x - keras.ops.mean(x, axis=0, keepdims=True)),
            lambda x: keras.ops.softmax(dense(x), axis=0),
            lambda x: MixesInTraining()(dense(x)),
            lambda x: 1e-7 * (dense(x) - keras.ops.mean(dense(x), axis=0, keepdims=True)),
        ):
            model = oracles.model_of(function)
            with self.assertRaisesRegex(ValueError, "treat every example alone"):
                model_mixing.check(model, model.input)

    def test_what_starts_at_zero_hides_nothing(self):
        model = oracles.model_of(
            lambda x: keras.layers.Dense(1, kernel_initializer="zeros")(x - keras.ops.mean(x, axis=0, keepdims=True))
        )
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, model.input)

    def test_a_model_that_is_not_built_hides_nothing_either(self):
        centre = keras.layers.Lambda(lambda x: x - keras.ops.mean(x, axis=0, keepdims=True))
        for last in (centre, keras.layers.Identity()):
            model = keras.Sequential([last, keras.layers.Dense(2, kernel_initializer="zeros")])
            if last is centre:
                with self.assertRaisesRegex(ValueError, "treat every example alone"):
                    model_mixing.check(model, np.ones((4, 3), np.float32))
            else:
                model_mixing.check(model, np.ones((4, 3), np.float32))
            np.testing.assert_array_equal(model.get_weights()[0], np.zeros((3, 2)))

    def test_mixing_in_one_direction_is_refused(self):
        model = oracles.model_of(lambda x: keras.layers.Dense(1)(keras.ops.cumsum(x, axis=0)))
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, model.input)

    def test_integer_inputs_are_moved(self):
        def mixed(x):
            rows = keras.layers.Embedding(5, 3)(x)
            return keras.layers.Dense(1)(rows - keras.ops.mean(rows, axis=0, keepdims=True))

        model = oracles.model_of(mixed, (1,), "int32")
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, model.input)

    def test_bfloat16_outputs_are_compared(self):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(3, dtype="mixed_bfloat16")(inputs))
        model_mixing.check(model, model.input)

    def test_a_model_is_tried_again_when_other_layers_are_trained(self):
        class MixesWhenTrained(keras.layers.Layer):
            def call(self, inputs):
                return inputs - keras.ops.mean(inputs, axis=0, keepdims=True) if self.trainable else inputs

        model = oracles.model_of(lambda x: MixesWhenTrained(name="mixes")(keras.layers.Dense(2)(x)))
        model.get_layer("mixes").trainable = False
        model_mixing.check(model, model.input)
        model.get_layer("mixes").trainable = True
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, model.input)

    def test_variables_that_depend_on_the_inputs_are_refused_and_counters_are_not(self):
        for raw, name in ((False, "keeps/kept"), (True, "raw:0")):
            model = oracles.model_of(lambda x, raw=raw: keras.layers.Dense(1)(Keeps(True, raw)(x)))
            with self.assertRaisesRegex(ValueError, f"keep nothing of its inputs.*variable '{name}'"):
                model_mixing.check(model, model.input)
            self.assertEqual(float(model.layers[1].kept.numpy()), 0.0)
            counts = oracles.model_of(lambda x, raw=raw: keras.layers.Dense(1)(Keeps(False, raw)(x)))
            model_mixing.check(counts, counts.input)
            self.assertEqual(float(counts.layers[1].kept.numpy()), 0.0)
        normed = oracles.model_of(lambda x: keras.layers.SpectralNormalization(keras.layers.Dense(2))(x))
        model_mixing.check(normed, normed.input)

    def test_variables_that_move_slowly_are_refused_too(self):
        model = oracles.model_of(lambda x: Keeps(True)(1e-9 * keras.layers.Dense(3)(x)))
        with self.assertRaisesRegex(ValueError, "keep nothing of its inputs.*Received: variable=keeps/kept"):
            model_mixing.check(model, model.input)

    def test_mixing_of_three_examples_only_is_refused(self):
        model = oracles.model_of(lambda x: keras.layers.Dense(1)(keras.ops.roll(x, 2, axis=0)))
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(model, model.input)

    def test_losses_that_mix_examples_or_give_no_value_an_example_are_refused(self):
        model = oracles.model_of(lambda x: keras.layers.Dense(1)(x))
        x, y = np.ones((8, 4), np.float32), np.ones(8, np.float32)
        for loss_fn, message in (
            (lambda y, p: tf.reduce_mean(tf.square(y - p), axis=1), "`loss` must treat every example alone"),
            (lambda y, p: tf.reduce_mean(tf.square(y - p[:, 0])), "`loss` must give one value per example"),
        ):
            for engine in ("book_keeping", "vectorized"):
                with self.assertRaisesRegex(ValueError, message):
                    clipped_sum.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0, engine=engine)

    def test_models_that_do_not_are_left_as_they_were(self):
        dropout = keras.layers.Dropout(0.5, seed=3)
        images = oracles.model_of(
            lambda x: keras.layers.Dense(2)(
                keras.layers.GlobalAveragePooling2D()(
                    dropout(keras.layers.GroupNormalization(2)(keras.layers.Conv2D(4, 3)(x)))
                )
            ),
            (None, None, 3),
        )
        state, weights = dropout.seed_generator.state.numpy().copy(), [w.copy() for w in images.get_weights()]
        model_mixing.check(images, images.input)
        np.testing.assert_array_equal(dropout.seed_generator.state.numpy(), state)
        for before, after in zip(weights, images.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        words = oracles.model_of(
            lambda x: keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(5, 3)(x)), (None,), "int32"
        )
        model_mixing.check(words, words.input)

    def test_the_public_function_refuses_them_inside_a_traced_function(self):
        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(2)

            def call(self, inputs):
                return self.dense(inputs) / keras.ops.max(keras.ops.abs(inputs))

        model = Subclassed()
        model(np.ones((2, 4), np.float32))

        @tf.function
        def values(x, y):
            return clipped_sum.clipped_gradient_sum(
                model, lambda y, p: tf.reduce_sum(p, axis=1) * y, x, y, l2_norm_clip=1.0
            ).values

        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            values(tf.ones([3, 4]), tf.ones([3]))


if __name__ == "__main__":
    absltest.main()
