"""Weights as named arrays: what is written is read, timm's names are all of ours, and a gap is refused."""

import os
import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import models
from noisy_sgd.models import named_weights
from noisy_sgd.models.nf_resnet import VARIANTS


def timms_state(skip_gains):
    """The names and shapes of timm 0.6.13's nf_resnet50, with random numbers."""
    generator, state = np.random.default_rng(0), {}

    def convolution(name, width_in, width_out, size):
        state[f"{name}.weight"] = generator.normal(size=(width_out, width_in, size, size)).astype(np.float32)
        state[f"{name}.bias"] = generator.normal(size=width_out).astype(np.float32)
        state[f"{name}.gain"] = generator.normal(size=(width_out, 1, 1, 1)).astype(np.float32)

    sizes = VARIANTS["nf_resnet50"]
    convolution("stem.conv", 3, sizes.stem_width, 7)
    width_in = sizes.stem_width
    for stage, (depth, width) in enumerate(zip(sizes.depths, sizes.widths, strict=True)):
        for block in range(depth):
            name = f"stages.{stage}.{block}"
            if block == 0:
                convolution(f"{name}.downsample.conv", width_in, width, 1)
            convolution(f"{name}.conv1", width_in, width // 4, 1)
            convolution(f"{name}.conv2", width // 4, width // 4, 3)
            convolution(f"{name}.conv3", width // 4, width, 1)
            if skip_gains:
                state[f"{name}.skipinit_gain"] = np.float32(block + 0.5)
            width_in = width
    state["head.fc.weight"] = generator.normal(size=(1000, width_in)).astype(np.float32)
    state["head.fc.bias"] = generator.normal(size=1000).astype(np.float32)
    return state


class NamedWeightsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.create_tempdir(), "weights.npz")
        self.model = models.nf_resnet("nf_resnet_tiny", 10, seed=0)

    def test_what_is_written_is_read(self):
        np.savez(self.path, **named_weights.arrays(models.nf_resnet("nf_resnet_tiny", 10, seed=1)))
        named_weights.load(self.path, self.model)
        expected = models.nf_resnet("nf_resnet_tiny", 10, seed=1).get_weights()
        for ours, theirs in zip(self.model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    @parameterized.parameters(True, False)
    def test_timms_arrays_are_all_of_the_network(self, skip_gains):
        state = timms_state(skip_gains)
        np.savez(self.path, **named_weights.of_timm(state))
        model = models.nf_resnet("nf_resnet50", 1000, input_shape=(32, 32, 3), convention="timm")
        named_weights.load(self.path, model)
        kernel = model.get_layer("stage2_block1_conv2").kernel.numpy()
        np.testing.assert_array_equal(kernel[2, 1, 5, 7], state["stages.1.0.conv2.weight"][7, 5, 2, 1])
        np.testing.assert_array_equal(model.get_layer("stem").gain, state["stem.conv.gain"].ravel())
        np.testing.assert_array_equal(model.get_layer("logits").kernel, state["head.fc.weight"].T)
        gain = float(model.get_layer("stage4_block3_skip_gain").gain)
        self.assertEqual(gain, 2.5 if skip_gains else 1.0)

    def test_another_networks_state_is_refused(self):
        with self.assertRaisesRegex(
            ValueError, "^`state` must be that of timm's nf_resnet50. .* named layer1.0.bn1.weight"
        ):
            named_weights.of_timm({"layer1.0.bn1.weight": np.zeros(3)})

    @parameterized.parameters(
        ("lacks", "must hold the weights of nf_resnet_tiny by their names, but .* lacks 1 of them, such as stem/gain$"),
        ("more", "must hold the weights of nf_resnet_tiny alone, but .* holds 1 others, such as head/kernel$"),
        ("shape", r"must hold stem/gain in the shape \(16,\) of nf_resnet_tiny, but .* shape \(15,\)$"),
        ("nan", "must hold finite numbers, but stem/gain in .* does not$"),
        ("none", "must be a .npz file of arrays: .* cannot be read \\(No such file or directory\\)$"),
        ("text", "must be a .npz file of arrays: .* cannot be read"),
        ("npy", "must be a .npz file of arrays: .* cannot be read"),
    )
    def test_refuses(self, fault, message):
        arrays = named_weights.arrays(self.model)
        if fault == "lacks":
            del arrays["stem/gain"]
        elif fault == "more":
            arrays["head/kernel"] = np.zeros(2)
        elif fault == "shape":
            arrays["stem/gain"] = np.zeros(15)
        elif fault == "nan":
            arrays["stem/gain"] = np.full(16, np.nan)
        path = pathlib.Path(self.path)
        if fault == "text":
            path.write_text("no zip")
        elif fault == "npy":
            with path.open("wb") as file:
                np.save(file, np.zeros(3))
        elif fault != "none":
            np.savez(path, **arrays)
        before = self.model.get_weights()
        with self.assertRaisesRegex(ValueError, f"^`initial_weights` {message}") as caught:
            named_weights.load(path, self.model)
        self.assertNotIn("\n", str(caught.exception))
        for kept, weight in zip(before, self.model.get_weights(), strict=True):
            np.testing.assert_array_equal(kept, weight)


if __name__ == "__main__":
    absltest.main()
