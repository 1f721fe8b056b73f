import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import per_example_loss

RNG = np.random.default_rng(0)
LABELS, LOGITS = RNG.integers(0, 3, 5), RNG.normal(size=(5, 3)).astype(np.float32)


class Weighted(keras.losses.Loss):
    """Not registered, with a required argument, and nothing of its own in its configuration."""

    def __init__(self, weights, **arguments):
        super().__init__(**arguments)
        self.weights = tf.constant(weights)

    def call(self, y_true, y_pred):
        labels = tf.cast(y_true, tf.int32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y_pred)
        return tf.gather(self.weights, labels) * losses


class Doubled(Weighted):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2.0 * super().__call__(y_true, y_pred, sample_weight)


class Squares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.square(y_true - y_pred)


def masked(values, mask):
    tensor = tf.constant(values)
    tensor._keras_mask = tf.constant(mask)
    return tensor


class LossObjectsTest(parameterized.TestCase):
    @parameterized.parameters(
        lambda: keras.losses.Huber(0.3),
        lambda: keras.losses.Huber(3.0, reduction="sum"),
        lambda: keras.losses.CosineSimilarity(axis=1),
        lambda: keras.losses.MeanSquaredError(dtype="bfloat16"),
        lambda: keras.losses.LogCosh,
        Squares,
    )
    def test_it_is_the_loss_that_was_given(self, make):
        loss = make()
        one = loss() if isinstance(loss, type) else loss
        targets = RNG.normal(size=(5, 3)).astype(np.float32)
        found = per_example_loss.from_keras(loss)((targets,), LOGITS)
        self.assertEqual(found.dtype, tf.float32)
        for index in range(5):
            row = slice(index, index + 1)
            expected = tf.cast(one(targets[row], LOGITS[row]), tf.float32)
            np.testing.assert_allclose(found[index], expected, rtol=1e-2 if one.dtype == "bfloat16" else 1e-5)

    @parameterized.parameters((Weighted, 1.0), (Doubled, 2.0))
    def test_it_keeps_what_it_holds_and_stays_what_it_is(self, loss_class, factor):
        loss = loss_class((0.1, 1.0, 9.0))
        before = dict(vars(loss))
        loss_fn = per_example_loss.from_keras(loss)
        probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
        expected = -np.log(probabilities[np.arange(5), LABELS]) * np.array([0.1, 1.0, 9.0])[LABELS] * factor
        np.testing.assert_allclose(loss_fn((LABELS,), LOGITS), expected, rtol=1e-5)
        self.assertEqual(vars(loss).keys(), before.keys())
        self.assertTrue(all(vars(loss)[name] is value for name, value in before.items()))
        # What changes later counts.
        loss.weights = tf.constant([1.0, 1.0, 1.0])
        expected = -np.log(probabilities[np.arange(5), LABELS]) * factor
        np.testing.assert_allclose(loss_fn((LABELS,), LOGITS), expected, rtol=1e-5)

    def test_its_call_sees_the_mask(self):
        class Sees(keras.losses.Loss):
            def call(self, y_true, y_pred):
                return tf.cast(y_pred._keras_mask, tf.float32) * 3.0

        mask = np.arange(3) < np.array([[3], [1]])
        found = per_example_loss.from_keras(Sees())((np.zeros((2, 3)),), masked(np.zeros((2, 3), np.float32), mask))
        np.testing.assert_allclose(found, [3.0, 3.0])

    @parameterized.parameters(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True, ignore_class=-1),
    )
    def test_classes_that_it_ignores(self, loss):
        labels, logits = RNG.integers(0, 3, (4, 6)), RNG.normal(size=(4, 6, 3)).astype(np.float32)
        labels[np.arange(6) >= np.array([[6], [4], [1], [0]])] = -1
        weights = RNG.uniform(0.5, 2.0, (4, 6)).astype(np.float32)
        mask = RNG.uniform(size=(4, 6)) < 0.7
        one = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        loss_fn = per_example_loss.from_keras(loss)
        plain, weighted = loss_fn((labels,), logits), loss_fn((labels, weights), masked(logits, mask))
        for index in range(4):
            row = slice(index, index + 1)
            np.testing.assert_allclose(plain[index], one(labels[row], logits[row]), rtol=1e-5, atol=1e-7)
            expected = one(labels[row], masked(logits[row], mask[row]), weights[row])
            np.testing.assert_allclose(weighted[index], expected, rtol=1e-5, atol=1e-7)

    def test_a_mask_that_does_not_fit_the_loss_is_refused(self):
        class Total(keras.losses.Loss):
            def call(self, y_true, y_pred):
                return tf.reduce_sum(tf.square(y_true - y_pred), axis=[1, 2])

        predictions = masked(np.ones((4, 4, 3), np.float32), np.ones((4, 4), bool))
        with self.assertRaisesRegex(ValueError, "`mask` must hold one value per example"):
            per_example_loss.from_keras(Total())((np.zeros((4, 4, 3)),), predictions)


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

    def test_functions_get_integers_as_keras_passes_them(self):
        def distance(y, p):
            return tf.abs(y - p)

        found = per_example_loss.from_keras(distance)((LABELS,), LOGITS[:, 0])
        np.testing.assert_allclose(found, np.abs(LABELS - LOGITS[:, 0]), rtol=1e-6)
        integers_alone = per_example_loss.from_keras(
            lambda y, p: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=p)
        )
        expected = keras.losses.sparse_categorical_crossentropy(LABELS, LOGITS, from_logits=True)
        np.testing.assert_allclose(integers_alone((LABELS,), LOGITS), expected, rtol=1e-5)

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
