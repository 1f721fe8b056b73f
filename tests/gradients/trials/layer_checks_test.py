import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.gradients.trials import layer_checks
from tests import oracles


def model_with(*layers):
    inputs = outputs = keras.Input((4,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


@keras.saving.register_keras_serializable(package="noisy_sgd_tests")
class AddsLoss(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        return inputs


class LayerChecksTest(absltest.TestCase):
    def test_batch_normalization_is_refused_even_when_nested(self):
        inner = model_with(keras.layers.Dense(3), keras.layers.BatchNormalization(name="mixes"))
        with self.assertRaisesRegex(ValueError, "layer 'mixes' .*GroupNormalization instead.*Received: layer=mixes"):
            layer_checks.check(model_with(inner))

    def test_frozen_batch_normalization_passes(self):
        normalization = keras.layers.BatchNormalization()
        inner = model_with(keras.layers.Dense(3), normalization)
        model = model_with(inner, keras.layers.Dense(3))
        for frozen in (inner, normalization):
            frozen.trainable = False
            layer_checks.check(model)
            frozen.trainable = True
            with self.assertRaisesRegex(ValueError, "`trainable = False`.*Received: layer=batch_normalization"):
                layer_checks.check(model)

    def test_batch_normalization_in_inference_mode_passes(self):
        class Normalized(keras.Model):
            def __init__(self, mode):
                super().__init__()
                self.mode = mode
                self.dense, self.normalization = keras.layers.Dense(3), keras.layers.BatchNormalization()

            def call(self, inputs, training=None):
                mode = training if self.mode == "as_called" else self.mode
                once = self.normalization(self.dense(inputs), training=False)
                return self.normalization(once, training=mode)

        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        for built in (True, False):
            for mode in (True, "as_called"):
                model = Normalized(mode)
                if built:
                    model(x)
                with self.assertRaisesRegex(ValueError, "in training mode"):
                    layer_checks.check(model, x)
            model = Normalized(False)
            if built:
                model(x)
            result = clipped_sum.clipped_gradient_sum(
                model, lambda y, p: p[:, 0] - y, x, np.ones(5, np.float32), l2_norm_clip=1e3
            )
            norms, _ = oracles.clipped_sum(model, lambda y, p: p[:, 0] - y, x, np.ones(5, np.float32), 1e3)
            self.assertLen(model.trainable_weights, 4)
            np.testing.assert_allclose(result.norms, norms, rtol=1e-5)

    def test_batch_normalization_is_looked_at_with_every_kind_of_inputs(self):
        class ByKind(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense, self.normalization = keras.layers.Dense(3), keras.layers.BatchNormalization()

            def call(self, inputs, training=None):
                plain = not isinstance(inputs, dict)
                return self.normalization(self.dense(inputs if plain else inputs["x"]), training=training and not plain)

        model, x = ByKind(), np.ones((5, 4), np.float32)
        for _ in range(2):
            layer_checks.check(model, x)
            with self.assertRaisesRegex(ValueError, "in training mode"):
                layer_checks.check(model, {"x": x})

    def test_weights_of_half_precision_are_refused(self):
        with self.assertRaisesRegex(ValueError, "mixed_bfloat16. Received: .*dtype=bfloat16"):
            layer_checks.check(model_with(keras.layers.Dense(3, dtype="bfloat16")))

    def test_activity_regularizer_is_refused(self):
        model = model_with(keras.layers.Dense(3, activity_regularizer="l2", name="regularized"))
        with self.assertRaisesRegex(ValueError, "layer 'regularized' has an `activity_regularizer`"):
            layer_checks.check(model)

    def test_added_losses_are_refused_and_weight_regularizers_are_not(self):
        x, y = np.ones((2, 4), np.float32), np.ones(2, np.float32)

        def compute(model):
            return clipped_sum.clipped_gradient_sum(model, lambda y, p: p[:, 0] - y, x, y, l2_norm_clip=1.0)

        with self.assertRaisesRegex(ValueError, "layer 'adds' calls `add_loss`"):
            compute(model_with(AddsLoss(name="adds"), keras.layers.Dense(1)))
        compute(model_with(keras.layers.Dense(1, kernel_regularizer="l2", bias_regularizer="l1")))

    def test_other_normalizations_pass(self):
        layer_checks.check(
            model_with(keras.layers.Dense(4), keras.layers.LayerNormalization(), keras.layers.GroupNormalization(2))
        )


if __name__ == "__main__":
    absltest.main()
