import keras
import numpy as np
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, networks
from noisy_sgd.figures import speed
from noisy_sgd.gradients import layer_calls

# Smaller ones of the same kinds.
SMALL = {
    "WORDS": 23, "LENGTH": 6, "WIDTH": 8, "HEADS": 2, "BLOCKS": 1, "PATCHES": 4, "VISION_WIDTH": 8, "VISION_HEADS": 2,
    "VISION_BLOCKS": 1, "LSTM_WORDS": 23, "LSTM_LENGTH": 5, "LSTM_WIDTH": 4, "LSTM_UNITS": 4, "LORA_RANK": 2,
}  # fmt: skip


class NetworksTest(parameterized.TestCase):
    @parameterized.parameters(*cases.FINE_TUNED)
    def test_a_private_step_runs_on_the_fast_engine(self, workload):
        with absltest.mock.patch.multiple(networks, **SMALL):
            model, x, y = networks.made(workload, 3, noisy_sgd.PrivateModel)
        before = [weight.numpy().copy() for weight in model.weights]
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(noisy_sgd.DPSGD(0.1, 1.0, 1.0, 3), loss, engine="book_keeping")
        model.train_on_batch(x, y)
        moved = {
            weight.path
            for weight, old in zip(model.weights, before, strict=True)
            if not np.array_equal(weight.numpy(), old)
        }
        self.assertEqual(moved, {weight.path for weight in model.trainable_weights})

    def test_lora_trains_the_small_matrices_and_the_head(self):
        with absltest.mock.patch.multiple(networks, **SMALL):
            model, _, _ = networks.made("lora_bert", 3, keras.Model)
        names = {weight.path.split("/")[-1] for weight in model.trainable_weights}
        self.assertEqual(names, {"lora_kernel_a", "lora_kernel_b", "kernel", "bias"})
        self.assertLen(model.trainable_weights, 2 * 2 + 2)
        self.assertNotEmpty(layer_calls.layers_with_weights(model))

    def test_sizes_are_those_that_the_page_of_benchmarks_names(self):
        model, x, y = networks.made("lstm_text", 2, keras.Model)
        self.assertEqual((x.shape, y.shape), ((2, 80), (2,)))
        self.assertEqual(model.count_params(), 10_000 * 64 + 4 * 128 * (64 + 128 + 1) + 2 * 129)

    def test_every_workload_has_a_name_in_the_figure_and_none_is_swept(self):
        self.assertContainsSubset(cases.FINE_TUNED, speed.NAMES)
        with self.assertRaisesRegex(config.ConfigError, "must be a network of images for a sweep"):
            cases.Benchmark(workload="decoder", sweep="input")


if __name__ == "__main__":
    absltest.main()
