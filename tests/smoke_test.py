"""Every public name resolves, and one private step trains: what must work before any other test is worth running."""

import math

import keras
import numpy as np
from absl.testing import absltest, parameterized

import noisy_sgd


class SmokeTest(parameterized.TestCase):
    @parameterized.parameters(*noisy_sgd.__all__)
    def test_public_name_resolves(self, name):
        self.assertEqual(getattr(noisy_sgd, name).__name__.split(".")[-1], name)

    def test_one_private_step_moves_the_weights_by_finite_amounts(self):
        inputs = keras.Input((4,))
        model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(inputs))
        optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=8)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss=loss, microbatch_size=4)
        before = model.get_weights()
        history = model.fit(np.ones((8, 4), "float32"), np.arange(8) % 3, batch_size=8, verbose=0)
        self.assertTrue(math.isfinite(history.history["loss"][0]))
        for old, new in zip(before, model.get_weights(), strict=True):
            self.assertTrue(np.all(np.isfinite(new)))
            self.assertTrue(np.all(new != old))


if __name__ == "__main__":
    absltest.main()
