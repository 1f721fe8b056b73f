import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients.engines import unclipped
from tests import oracles

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 2, 6, 6, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 4)
PRESENT = np.array([True, False, True, True])


class UnclippedTest(parameterized.TestCase):
    @parameterized.product(count=(0, 1, 4), views=(1, 2), masked=(False, True))
    def test_a_batch_of_unknown_size_equals_a_loop_over_examples_and_may_be_empty(self, count, views, masked):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Conv2D(4, 3, activation="tanh"), keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6, 6, 2)), *layers])

        @tf.function(autograph=False)
        def summed(x, y, mask):
            mask = mask if masked else None
            result = unclipped.gradient_sum(model, oracles.cross_entropy, x, y, mask=mask, views=views)
            self.assertIsNone(result.norms)
            return result.losses, result.predictions, result.values

        x = IMAGES if views == 2 else IMAGES[:, 0]
        specs = [tf.TensorSpec([None, *x.shape[1:]]), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.bool)]
        concrete = summed.get_concrete_function(*specs)
        losses, predictions, values = concrete(*map(tf.constant, (x[:count], LABELS[:count], PRESENT[:count])))
        self.assertEqual((losses.shape, predictions.shape), ((count,), (count, 3)))
        kept = PRESENT if masked else np.ones(4, bool)
        expected = [np.zeros(weight.shape) for weight in model.trainable_weights]
        for view in range(views):
            one = IMAGES[:count, view]
            sums = oracles.clipped_sum(model, oracles.cross_entropy, one, LABELS[:count], np.inf, kept=kept)[1]
            expected = [total + part / views for total, part in zip(expected, sums, strict=True)]
        for value, total in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, total, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    absltest.main()
