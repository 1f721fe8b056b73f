"""Tests of diagonal linear networks as a Keras model: gradients by hand, runs kept apart, saving."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.models import diagonal_linear


class DiagonalLinearNetworkTest(parameterized.TestCase):
    def test_starts_at_zero_from_alpha(self):
        model = diagonal_linear.DiagonalLinearNetwork(3, num_runs=2, alpha=[0.1, 1e-4])
        np.testing.assert_array_equal(model.predictor(), np.zeros((2, 3)))
        expected = np.broadcast_to(np.array([0.1, 1e-4])[:, None, None], (2, 2, 3))
        np.testing.assert_array_equal(model.signed_weights, expected)

    @parameterized.parameters(None, 1)
    def test_gradient_by_hand(self, sampled):
        generator = np.random.default_rng(0)
        features, targets = generator.standard_normal((6, 3)), generator.standard_normal(6)
        weights = generator.standard_normal((4, 2, 3))
        model = diagonal_linear.DiagonalLinearNetwork(3, num_runs=4)
        model.signed_weights.assign(weights)
        indices = np.tile(np.arange(6)[:, None], (1, 4)) if sampled is None else np.array([[5, 0, 0, 3]])
        with tf.GradientTape() as tape:
            predictions = model(features if sampled is None else features[indices])
            losses = diagonal_linear.quarter_squared_error(targets[indices], predictions)
            loss = tf.reduce_mean(losses)
        gradient = tape.gradient(loss, model.trainable_variables)[0]
        beta = weights[:, 0] ** 2 - weights[:, 1] ** 2
        residual = np.einsum("brd,rd->br", features[indices], beta) - targets[indices]
        slope = np.mean(residual[..., None] * features[indices], axis=0)
        np.testing.assert_allclose(gradient[:, 0], slope * weights[:, 0], rtol=1e-11)
        np.testing.assert_allclose(gradient[:, 1], -slope * weights[:, 1], rtol=1e-11)
        np.testing.assert_allclose(losses, 0.25 * np.sum(residual**2, axis=1), rtol=1e-12)

    def test_saves_and_loads(self):
        model = diagonal_linear.DiagonalLinearNetwork(3, num_runs=2, alpha=[0.1, 0.2])
        path = os.path.join(self.create_tempdir(), "model.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(loaded.signed_weights, model.signed_weights)
        self.assertEqual(loaded.get_config(), model.get_config())

    @parameterized.parameters(
        (dict(dimension=0), "`dimension` must be at least 1"),
        (dict(dimension=2, alpha=-0.1), "`alpha` must be positive"),
        (dict(dimension=2, num_runs=3, alpha=[0.1, 0.1]), "`alpha` must be positive, a number or a list"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            diagonal_linear.DiagonalLinearNetwork(**arguments)


if __name__ == "__main__":
    absltest.main()
