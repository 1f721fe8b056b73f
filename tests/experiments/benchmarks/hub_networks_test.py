import importlib.util
import sys

import keras
import numpy as np
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, hub_networks, networks

# Smaller ones of the same kinds.
SMALL = {"WORDS": 23, "LENGTH": 6, "WIDTH": 8, "BLOCKS": 1}


class HubNetworksTest(parameterized.TestCase):
    @parameterized.parameters(*cases.KERAS_HUB)
    def test_a_private_step_runs_on_the_fast_engine(self, workload):
        if importlib.util.find_spec("keras_hub") is None:
            self.skipTest("KerasHub is not installed; `pip install keras-hub` has this test run.")
        with absltest.mock.patch.multiple(hub_networks, **SMALL):
            model, x, y = networks.made(workload, 3, noisy_sgd.PrivateModel)
        self.assertEqual((x["token_ids"].shape, y.shape, model.output_shape), ((3, 6), (3,), (None, 2)))
        # The first word of a causal network would not see the others.
        changed = {**x, "token_ids": np.hstack([x["token_ids"][:, :-1], (x["token_ids"][:, -1:] + 1) % 23])}
        self.assertGreater(np.abs(model(x) - model(changed)).min(), 0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(noisy_sgd.DPSGD(0.1, 1.0, 1.0, 3), loss, engine="book_keeping")
        before = [weight.numpy() for weight in model.trainable_weights]
        model.train_on_batch(x, y)
        for old, weight in zip(before, model.trainable_weights, strict=True):
            self.assertFalse((old == weight.numpy()).all(), weight.path)

    def test_without_keras_hub_a_sentence_says_what_to_install(self):
        with absltest.mock.patch.dict(sys.modules, {"keras_hub": None}):
            with self.assertRaisesRegex(config.ConfigError, "`--workload` needs KerasHub .*pip install keras-hub"):
                networks.made("hub_bert", 2, keras.Model)


if __name__ == "__main__":
    absltest.main()
