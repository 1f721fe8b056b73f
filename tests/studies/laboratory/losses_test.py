import keras
import numpy as np
from absl.testing import absltest

from noisy_sgd.studies.laboratory import losses


class LossesTest(absltest.TestCase):
    def test_hinge_by_hand(self):
        logits = np.asarray([[2.0, 0.5, -1.0], [0.0, 1.0, 0.4], [3.0, 3.0, 0.0]], np.float32)
        found = losses.named("hinge").call(np.asarray([0, 2, 1]), logits)
        # 1 + 0.5 - 2 < 0; 1 + 1 - 0.4; 1 + 3 - 3.
        np.testing.assert_allclose(found, [0.0, 1.6, 1.0], rtol=1e-6)

    def test_cross_entropy_is_keras(self):
        logits, labels = np.asarray([[0.3, -0.2]], np.float32), np.asarray([1])
        expected = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        np.testing.assert_allclose(losses.named("cross_entropy")(labels, logits), expected[0], rtol=1e-6)

    def test_an_unknown_loss_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`loss` must be one of.*Received"):
            losses.named("square")


if __name__ == "__main__":
    absltest.main()
