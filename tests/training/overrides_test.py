import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd

X, Y = np.ones((8, 3), np.float32), np.zeros((8, 2), np.float32)


class OwnLoss(noisy_sgd.PrivateModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 7.0 * tf.reduce_mean(tf.abs(y - y_pred))


class OwnStep(noisy_sgd.PrivateModel):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def with_own_metrics(model_class):
    class OwnMetrics(model_class):
        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            results = super().compute_metrics(x, y, y_pred, sample_weight)
            return results | {"largest": tf.reduce_max(tf.abs(y_pred)), "examples": tf.shape(x)[0]}

    return OwnMetrics


class OwnCall(noisy_sgd.PrivateModel):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training=training, mask=mask)


def network(model_class):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,))
    return model_class(inputs, keras.layers.Dense(2)(inputs))


def dp():
    return noisy_sgd.DPSGD(0.1, float("inf"), 0.0, 8)


class OverridesTest(parameterized.TestCase):
    @parameterized.parameters(dp, lambda: noisy_sgd.NoisySGD(0.1, 0.0, seed=1), lambda: keras.optimizers.SGD(0.1))
    def test_a_loss_of_the_whole_batch_is_refused(self, make):
        with self.assertRaisesRegex(ValueError, "`compute_loss` must not be overridden.*`loss=`.*Received: .*OwnLoss"):
            network(OwnLoss).compile(make(), "mse")

    def test_a_step_that_may_mix_examples_is_refused_where_they_are_clipped(self):
        with self.assertRaisesRegex(ValueError, "`train_step` must not be overridden.*Received: train_step of OwnStep"):
            network(OwnStep).compile(dp(), "mse")
        model = network(OwnStep)
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0)

    @parameterized.parameters("compute_loss", "train_step")
    def test_a_method_that_is_replaced_on_the_object_is_refused_before_training(self, name):
        model = network(noisy_sgd.PrivateModel)
        model.compile(dp(), "mse")
        object.__setattr__(model, name, lambda *args, **kwargs: {})
        before = model.get_weights()
        with self.assertRaisesRegex(ValueError, f"`{name}` must not be overridden"):
            model.fit(X, Y, verbose=0)
        np.testing.assert_array_equal(before[0], model.get_weights()[0])

    @parameterized.parameters(None, 3)
    def test_metrics_of_its_own_are_keras(self, microbatch_size):
        expected, model = (network(with_own_metrics(each)) for each in (keras.Model, noisy_sgd.PrivateModel))
        expected.compile(keras.optimizers.SGD(0.1), "mse")
        model.compile(dp(), "mse", microbatch_size=microbatch_size)
        histories = [each.fit(X, Y, batch_size=8, verbose=0).history for each in (expected, model)]
        self.assertEqual(set(histories[0]), {"loss", "largest", "examples"})
        for name, values in histories[0].items():
            np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)

    def test_a_call_round_the_functional_models_is_what_is_trained(self):
        model = network(OwnCall)
        model.compile(dp(), "mse")
        kernel = model.get_weights()[0].astype(np.float64)
        model.fit(X, Y, verbose=0)
        gradient = X.T @ (2 * 2 * (2 * X @ kernel)) / 2 / 8
        np.testing.assert_allclose(kernel - model.get_weights()[0], 0.1 * gradient, rtol=1e-4)


if __name__ == "__main__":
    absltest.main()
