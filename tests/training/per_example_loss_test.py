import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import per_example_loss

RNG = np.random.default_rng(0)
LABELS, LOGITS = RNG.integers(0, 3, 5), RNG.normal(size=(5, 3)).astype(np.float32)


class PerExampleLossTest(parameterized.TestCase):
    @parameterized.parameters(
        "sparse_categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        keras.losses.sparse_categorical_crossentropy,
    )
    def test_the_mean_is_keras_loss(self, loss):
        predictions = LOGITS if isinstance(loss, keras.losses.Loss) else np.exp(LOGITS) / np.exp(LOGITS).sum(1)[:, None]
        losses = per_example_loss.from_keras(loss)((LABELS,), predictions)
        self.assertEqual(losses.shape, (5,))
        resolved = keras.losses.get(loss)
        for index in range(5):
            expected = resolved(LABELS[index : index + 1], predictions[index : index + 1])
            np.testing.assert_allclose(losses[index], np.squeeze(expected), rtol=1e-5)

    def test_sample_weights_multiply(self):
        weights = np.arange(5, dtype=np.float32)
        plain = per_example_loss.from_keras("mse")((LOGITS,), LOGITS + 1)
        weighted = per_example_loss.from_keras("mse")((LOGITS, weights), LOGITS + 1)
        np.testing.assert_allclose(weighted, plain * weights, rtol=1e-6)

    def test_targets_of_several_axes_are_averaged(self):
        losses = per_example_loss.from_keras("mse")((np.zeros((5, 4, 3)),), np.ones((5, 4, 3)))
        np.testing.assert_allclose(losses, np.ones(5))

    def test_several_outputs(self):
        loss_fn = per_example_loss.from_keras({"a": "mse", "b": "mae"}, {"a": 2.0, "b": 0.5})
        zeros = np.zeros((5, 3))
        losses = loss_fn(({"a": zeros, "b": zeros},), {"a": zeros + 2, "b": zeros + 2})
        np.testing.assert_allclose(losses, np.full(5, 2 * 4 + 0.5 * 2))

    def test_several_outputs_have_weights_of_their_own(self):
        loss_fn = per_example_loss.from_keras(["mse", None, "mae"], [2.0, 1.0, 0.5])
        zeros, weights = np.zeros((5, 3)), np.arange(5.0)
        predictions = [zeros + 2, zeros, zeros + 2]
        found = loss_fn(([zeros, (), zeros], [weights, (), ()]), predictions)
        np.testing.assert_allclose(found, 2 * 4 * weights + 0.5 * 2)
        found = loss_fn(([zeros, (), zeros], weights), predictions)
        np.testing.assert_allclose(found, (2 * 4 + 0.5 * 2) * weights)

    def test_weights_of_several_axes(self):
        weights = RNG.uniform(size=(5, 4))
        losses = per_example_loss.from_keras("mse")((np.zeros((5, 4, 3)), weights), np.ones((5, 4, 3)))
        np.testing.assert_allclose(losses, weights.mean(axis=1))
        with self.assertRaisesRegex(
            ValueError, "`sample_weight` must hold one value.*Received: sample_weight of shape"
        ):
            per_example_loss.from_keras("mse")((np.zeros((5, 3)), weights), np.ones((5, 3)))

    @parameterized.parameters("mse", keras.losses.MeanSquaredError())
    def test_a_mask_is_keras_for_each_example_alone(self, loss):
        targets, predictions = (RNG.normal(size=(4, 5, 3)).astype(np.float32) for _ in range(2))
        mask = np.arange(5) < np.array([[5], [3], [1], [0]])
        weights = RNG.uniform(size=(4, 5)).astype(np.float32)

        def masked(rows):
            tensor = tf.constant(predictions[rows])
            tensor._keras_mask = tf.constant(mask[rows])
            return tensor

        found = per_example_loss.from_keras(loss)((targets, weights), masked(slice(None)))
        for index in range(4):
            row = slice(index, index + 1)
            expected = keras.losses.MeanSquaredError()(targets[row], masked(row), weights[row])
            np.testing.assert_allclose(found[index], expected, rtol=1e-5)

    @parameterized.parameters("hinge", "squared_hinge", keras.losses.hinge, keras.losses.Hinge())
    def test_hinge_losses_convert_the_targets_of_each_example_alone(self, loss):
        targets = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 0], [-1, 1, -1], [0.5, 1, 0]], np.float32)
        found = per_example_loss.from_keras(loss)((targets,), LOGITS)
        of_keras = keras.losses.get(loss)
        expected = [np.squeeze(of_keras(targets[i : i + 1], LOGITS[i : i + 1])) for i in range(5)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        # Of the batch none are converted.
        self.assertGreater(np.max(np.abs(found - of_keras(targets, LOGITS))), 0.1)

    @parameterized.parameters(((5,), (5, 1)), ((5, 1), (5,)), ((5, 4, 1), (5, 4)), ((5, 4), (5, 4, 1)))
    def test_functions_get_targets_and_predictions_of_one_rank(self, y_shape, shape):
        y, predictions = RNG.normal(size=y_shape), RNG.normal(size=shape).astype(np.float32)
        found = per_example_loss.from_keras(lambda a, b: tf.square(a - b))((y,), predictions)
        expected = np.square(y.reshape(shape) - predictions).reshape(5, -1).mean(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_functions_compute_in_single_precision_or_more(self):
        predictions = tf.constant(LOGITS, tf.bfloat16)
        losses = per_example_loss.from_keras(keras.losses.mean_squared_error)((LOGITS + 1,), predictions)
        self.assertEqual(losses.dtype, tf.float32)
        expected = np.square(LOGITS + 1 - np.asarray(predictions, np.float32)).mean(axis=1)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @parameterized.parameters(
        ((5,), "sparse_categorical_crossentropy", 3),
        ((5, 3), "categorical_crossentropy", 3),
        ((5, 1), "binary_crossentropy", 1),
    )
    def test_crossentropy_is_the_one_of_the_shapes(self, y_shape, name, classes):
        y = RNG.integers(0, 2, y_shape).astype(np.float32)
        predictions = np.full((5, classes), 1 / (classes + 1), np.float32)
        found, expected = (per_example_loss.from_keras(loss)((y,), predictions) for loss in ("crossentropy", name))
        np.testing.assert_array_equal(found, expected)

    @parameterized.parameters("a", ({"p": [1.0, "b"]},))
    def test_weights_that_are_no_numbers_are_refused(self, loss_weights):
        with self.assertRaisesRegex(ValueError, "`loss_weights` must be a number.*Received: loss_weights="):
            per_example_loss.from_keras("mse", loss_weights)

    @parameterized.parameters("no_such_loss", None)
    def test_unknown_losses_are_refused(self, loss):
        with self.assertRaisesRegex(ValueError, "`loss` must be.*Received: loss="):
            per_example_loss.from_keras(loss)


if __name__ == "__main__":
    absltest.main()
