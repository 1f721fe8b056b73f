"""Tests of linear least squares as a Keras model: shapes, gradients by hand, runs kept apart, saving."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.models import least_squares


def _data(seed=0, n=6, d=3):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)), generator.standard_normal(n), generator.standard_normal((4, d))


class LinearLeastSquaresTest(parameterized.TestCase):
    def test_predictions_and_gradient_by_hand(self):
        features, targets, theta = _data()
        model = least_squares.LinearLeastSquares(3, num_runs=4)
        model.coefficients.assign(theta)
        with tf.GradientTape() as tape:
            predictions = model(features)
            loss = tf.reduce_mean(least_squares.half_squared_error(targets, predictions))
        self.assertEqual(predictions.dtype, "float64")
        np.testing.assert_allclose(predictions, features @ theta.T, rtol=1e-12)
        gradient = tape.gradient(loss, model.trainable_variables)[0]
        expected = (theta @ features.T - targets) @ features / len(targets)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)

    def test_every_run_may_have_its_own_examples(self):
        features, targets, theta = _data()
        model = least_squares.LinearLeastSquares(3, num_runs=4)
        model.coefficients.assign(theta)
        indices = np.array([[0, 1, 2, 3], [5, 5, 4, 0]])
        predictions = model(features[indices])
        expected = np.take_along_axis(features @ theta.T, indices, axis=0)
        np.testing.assert_allclose(predictions, expected, rtol=1e-12)
        losses = least_squares.half_squared_error(targets[indices], predictions)
        np.testing.assert_allclose(losses, 0.5 * np.sum((expected - targets[indices]) ** 2, axis=1), rtol=1e-12)

    def test_an_epoch_of_fit_is_a_step_of_gradient_descent(self):
        features, targets, _ = _data()
        model = least_squares.LinearLeastSquares(3)
        model.compile(keras.optimizers.SGD(0.25), least_squares.half_squared_error)
        model.fit(features, targets, batch_size=6, epochs=1, verbose=0)
        np.testing.assert_allclose(model.coefficients.numpy()[0], 0.25 * features.T @ targets / 6, rtol=1e-5)

    def test_saves_and_loads(self):
        model = least_squares.LinearLeastSquares(3, num_runs=2)
        model.coefficients.assign(np.arange(6.0).reshape(2, 3))
        path = os.path.join(self.create_tempdir(), "model.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(loaded.coefficients, model.coefficients)
        self.assertEqual(loaded.get_config(), model.get_config())

    @parameterized.parameters("dimension", "num_runs")
    def test_refuses(self, name):
        with self.assertRaisesRegex(ValueError, f"`{name}` must be at least 1. Received: {name}=0"):
            least_squares.LinearLeastSquares(**{"dimension": 3, name: 0})


if __name__ == "__main__":
    absltest.main()
