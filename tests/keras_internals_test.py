"""What Keras offers no public name for: each function against what Keras shows in public of the same thing."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import keras_internals


def nested() -> keras.Model:
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.layers.Dense(4, name="first"), keras.layers.Dropout(0.5, name="drop")])
    hidden = inner(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="last")(inner(hidden[:, :3])))


class LayersTest(absltest.TestCase):
    def test_all_layers_at_any_depth_each_once(self):
        model = nested()
        found = keras_internals.layers(model)
        self.assertIs(found[0], model)
        self.assertEqual(found[1:], keras_internals.layers(model, include_self=False))
        names = [layer.name for layer in found]
        self.assertContainsSubset(["first", "drop", "last"], names)
        self.assertLen({id(layer) for layer in found}, len(found))
        self.assertContainsSubset([layer.name for layer in model.layers], names)
        self.assertEmpty(keras_internals.layers(model.get_layer("last"), include_self=False))

    def test_a_model_that_converts_its_inputs_is_functional_without_a_call_of_its_own(self):
        seen = []

        class Spy(keras.layers.Layer):
            def call(self, inputs):
                seen.append(keras.backend.standardize_dtype(inputs.dtype))
                return inputs

        class Own(keras.Model):
            def call(self, inputs):
                return super().call(inputs)

        class OwnOuter(keras.Model):
            def __call__(self, *args, **kwargs):
                return super().__call__(*args, **kwargs)

        inputs = keras.Input((3,))
        outputs = Spy()(inputs)
        model = keras.Model(inputs, outputs)
        self.assertTrue(keras_internals.converts_inputs(model))
        for x in (np.ones((2, 3), np.uint8), np.ones((2, 3))):
            model(x)
        self.assertEqual(set(seen), {"float32"})
        self.assertFalse(keras_internals.converts_inputs(Own(inputs, outputs)))
        self.assertFalse(keras_internals.converts_inputs(OwnOuter(inputs, outputs)))
        self.assertFalse(keras_internals.converts_inputs(keras.Sequential([inputs, keras.layers.Dense(2)])))
        model.call = model.call
        self.assertFalse(keras_internals.converts_inputs(model))

    def test_own_weights_with_frozen_ones_and_without_those_of_inner_layers(self):
        model = nested()
        dense = model.get_layer("last")
        dense.trainable = False
        self.assertEqual([weight.name for weight in keras_internals.own_weights(dense)], ["kernel", "bias"])
        self.assertEmpty(keras_internals.own_weights(model))
        found = [weight for layer in keras_internals.layers(model) for weight in keras_internals.own_weights(layer)]
        self.assertCountEqual([id(weight) for weight in found], [id(weight) for weight in model.weights])
        normalization = keras.layers.BatchNormalization()
        normalization.build((None, 3))
        self.assertEqual([one.name for one in keras_internals.own_weights(normalization)], ["gamma", "beta"])

    def test_the_weights_of_an_optimizer(self):
        model = nested()
        optimizer = keras.optimizers.SGD()
        optimizer.build(model.trainable_variables)
        found = keras_internals.optimizer_weights(optimizer)
        self.assertEqual([id(weight) for weight in found], [id(weight) for weight in model.trainable_variables])

    def test_the_seed_generators_that_a_seeded_model_draws_from(self):
        model, x = nested(), np.ones((5, 3), np.float32)
        (generator,) = keras_internals.seed_generators(model)
        self.assertIsInstance(generator, keras.random.SeedGenerator)
        drawn = []
        for _ in range(2):
            generator.state.assign([7, 0])
            drawn.append(model(x, training=True).numpy())
        np.testing.assert_array_equal(*drawn)
        self.assertFalse(np.allclose(drawn[0], model(x, training=True)))

    def test_layers_that_are_rematerialized(self):
        with keras.RematScope(mode="full"):
            inside = keras.layers.Dense(1)
        self.assertTrue(keras_internals.is_rematerialized(inside))
        self.assertFalse(keras_internals.is_rematerialized(keras.layers.Dense(1)))


class TensorsTest(parameterized.TestCase):
    def test_the_mask_that_a_layer_leaves_and_one_that_is_attached(self):
        ids = np.array([[3, 0], [1, 2]])
        embedded = keras.layers.Embedding(4, 2, mask_zero=True)(ids)
        np.testing.assert_array_equal(keras_internals.mask(embedded), ids != 0)
        self.assertIsNone(keras_internals.mask(tf.ones([2])))
        values = tf.identity(embedded)
        keras_internals.attach_mask(values, tf.constant(ids == 1))
        # Keras' own layers find it.
        averaged = keras.layers.GlobalAveragePooling1D()(values)
        np.testing.assert_allclose(averaged[1], values[1, 0])

    @parameterized.parameters((1, 1), (3, 1), (2, 3))
    def test_causal_padding_makes_a_valid_convolution_causal(self, size, dilation):
        x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
        layer = keras.layers.Conv1D(4, size, padding="causal", dilation_rate=dilation)
        expected = layer(x)
        valid = keras.layers.Conv1D(4, size, padding="valid", dilation_rate=dilation)
        valid.build((None, 9, 3))
        valid.set_weights(layer.get_weights())
        np.testing.assert_allclose(valid(keras_internals.causally_padded(layer, x)), expected, atol=1e-6)


class LossesTest(absltest.TestCase):
    def test_the_arguments_of_a_loss(self):
        self.assertEqual(keras_internals.loss_arguments(keras.losses.Huber(0.3))["delta"], 0.3)
        self.assertEqual(keras_internals.loss_arguments(keras.losses.Loss()), {})

    def test_the_metric_of_the_loss_is_what_fit_reports(self):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", "mse")
        history = model.fit(np.ones((4, 3)), np.ones((4, 1)), batch_size=4, verbose=0).history
        tracker = keras_internals.loss_tracker(model)
        self.assertEqual(tracker.name, "loss")
        self.assertAlmostEqual(float(tracker.result()), history["loss"][0], places=5)


if __name__ == "__main__":
    absltest.main()
