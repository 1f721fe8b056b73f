import keras
import numpy as np
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

    @parameterized.parameters("no_such_loss", None)
    def test_unknown_losses_are_refused(self, loss):
        with self.assertRaisesRegex(ValueError, "`loss` must be.*Received: loss="):
            per_example_loss.from_keras(loss)


if __name__ == "__main__":
    absltest.main()
