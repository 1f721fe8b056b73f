import re

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.training import distribution

X = np.ones((6, 3), np.float32)


def setUpModule():
    distribution.use_logical_devices(2)


def compiled(loss, classes, optimizer=None, strategy="default"):
    with distribution.make_strategy(strategy).scope():
        inputs = keras.Input((3,))
        model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(classes)(inputs))
        model.compile(optimizer or noisy_sgd.DPSGD(0.1, 1.0, 0.0, 6), loss)
    return model


def from_logits(name):
    return getattr(keras.losses, name)(from_logits=True)


class TargetShapesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("mse", (6, 4), "default"),
        ("mse", (6,), "default"),
        (keras.losses.MeanSquaredError(), (6, 4), "mirrored"),
        (from_logits("SparseCategoricalCrossentropy"), (6, 2), "default"),
        (from_logits("CategoricalCrossentropy"), (6,), "default"),
        (from_logits("CategoricalCrossentropy"), (6, 3), "mirrored"),
        (lambda y, p: tf.reduce_sum(tf.square(y - p), axis=-1), (6, 4), "default"),
    )
    def test_both_shapes_are_named(self, loss, shape, strategy):
        received = f"Received: y of shape {(None, *shape[1:])}, outputs of shape (None, 2)"
        with self.assertRaisesRegex(ValueError, f"`y` must have a shape that.*{re.escape(received)}"):
            compiled(loss, 2, strategy=strategy).fit(X, np.ones(shape, np.float32), verbose=0)

    def test_weights_are_named_too(self):
        with self.assertRaisesRegex(ValueError, r"`y` and `sample_weight` must.*sample_weight of shape \(None, 5\)"):
            compiled("mse", 2).fit(X, np.ones((6, 2)), sample_weight=np.ones((6, 5)), verbose=0)

    def test_noise_without_clipping_says_it_too(self):
        with self.assertRaisesRegex(ValueError, r"Received: y of shape \(None, 4\), outputs of shape \(None, 2\)"):
            compiled("mse", 2, noisy_sgd.NoisySGD(0.1, 0.0, seed=1)).fit(X, np.ones((6, 4)), verbose=0)

    @parameterized.parameters(
        ("mse", (6, 2), 2),
        ("mse", (6,), 1),
        ("mse", (6, 1), 2),
        (from_logits("SparseCategoricalCrossentropy"), (6,), 2),
        (from_logits("SparseCategoricalCrossentropy"), (6, 1), 2),
    )
    def test_what_keras_takes_is_taken(self, loss, shape, classes):
        compiled(loss, classes).fit(X, np.zeros(shape, np.float32), verbose=0)

    def test_a_loss_that_asks_for_values_sees_none(self):
        def positive(y, p):
            with tf.control_dependencies([tf.debugging.assert_positive(y)]):
                return tf.reduce_mean(tf.square(y - p), axis=-1)

        compiled(positive, 2).fit(X, np.ones((6, 2), np.float32), verbose=0)


if __name__ == "__main__":
    absltest.main()
