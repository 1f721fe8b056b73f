import importlib.util
import math
import sys
import warnings
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.benchmarks import cases, networks, peers

INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "opacus"))
# Fewer words and blocks, so that a loop over examples takes little time.
SMALL = {"WORDS": 23, "BLOCKS": 1, "VISION_BLOCKS": 1, "LSTM_LENGTH": 5}


class PeersTest(parameterized.TestCase):
    def test_without_the_peer_it_says_how_to_install_it(self):
        with (
            mock.patch.dict(sys.modules, {"opacus": None}),
            self.assertRaisesRegex(config.ConfigError, "`--sweep` needs PyTorch and Opacus .*pip install torch opacus"),
        ):
            peers.lines(cases.Benchmark(sweep="peers", workload="mlp"))

    @parameterized.parameters(
        ("--workload=nf_resnet50", "`--workload` must be one of mlp, mnist_cnn, wrn_16_4"),
        ("--microbatch_size=32", "`--microbatch_size` means nothing to `--sweep=peers`"),
        ("--algorithm=sgd", "`--algorithm` means nothing to `--sweep=peers`"),
    )
    def test_refuses(self, argument, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            flags.benchmark(["benchmark", "--sweep=peers", argument])

    @absltest.skipUnless(INSTALLED, "PyTorch and Opacus are not installed")
    @parameterized.parameters(*cases.PEERS)
    def test_both_sides_have_the_same_network(self, workload):
        with warnings.catch_warnings():
            # Opacus' hooks make PyTorch warn.
            warnings.simplefilter("ignore")
            lines = peers.lines(cases.Benchmark(sweep="peers", workload=workload, batch_size=4, num_rounds=1))
        self.assertLen(lines, 5)
        self.assertLen({line["weights"] for line in lines}, 1)
        refused = {line["algorithm"]: line.pop("refused") for line in lines if "refused" in line}
        tied = {"ghost": "Parameter tying is not supported with Ghost Clipping"}
        self.assertEqual(refused, tied if workload == "decoder_tied" else {})
        lines = [line for line in lines if line["algorithm"] not in refused]
        for line in lines:
            (own,) = (one for one in lines if one["library"] == line["library"] and one["algorithm"] == "sgd")
            ratio = line["median_ms"] / own["median_ms"]
            self.assertAlmostEqual(line["ratio_to_own_sgd"] / ratio, 1, delta=0.01)
            ratio = line["processor_ms"] / own["processor_ms"]
            self.assertAlmostEqual(line["processor_ratio_to_own_sgd"] / ratio, 1, delta=0.01)
        self.assertGreater(min(line["median_ms"] for line in lines), 0)

    @absltest.skipUnless(INSTALLED, "PyTorch and Opacus are not installed")
    @parameterized.parameters(("sgd", NotImplementedError), ("hooks", ValueError))
    def test_another_failure_than_a_refusal_of_opacus_is_no_row(self, kind, error):
        made = peers._torch_step

        def failing(settings, name):
            if name == kind:
                raise error("a fault")
            return made(settings, name)

        with mock.patch.object(peers, "_torch_step", failing), self.assertRaisesRegex(error, "a fault"):
            peers.lines(cases.Benchmark(sweep="peers", workload="mlp", batch_size=4, num_rounds=1))

    @absltest.skipUnless(INSTALLED, "PyTorch and Opacus are not installed")
    @parameterized.parameters(*cases.FINE_TUNED)
    def test_both_sides_multiply_as_many_numbers(self, workload):
        import torch
        from torch.nn import attention
        from torch.utils import flop_counter

        from noisy_sgd.experiments.benchmarks import torch_networks

        settings = cases.Benchmark(workload=workload, batch_size=2)
        keras_model, x, _ = networks.made(workload, 2, keras.Model)
        for layer in keras_model.layers:
            if isinstance(layer, keras.layers.LSTM):
                layer.unroll = True
        inputs, _ = peers._torch_batch(settings)
        beyond = 0
        if workload == "lora_bert":
            # Keras multiplies A and B by each other, and adds the product to the kernel. Opacus needs layers, so the
            # inputs are multiplied by A, then by B.
            width, rank, adapted = networks.WIDTH, networks.LORA_RANK, 2 * networks.BLOCKS
            a, b = networks.HEADS * rank * width, rank * width
            words = 2 * networks.LENGTH
            beyond = adapted * 2 * (words * (a + b) - a * width // networks.HEADS)
        for private in (False, True):
            if workload == "lstm_text" and not private:
                # One operation, whose products are not counted.
                continue
            torch_model = torch_networks.made(workload, inputs.shape[1:], private=private)
            with (
                flop_counter.FlopCounterMode(display=False) as counter,
                attention.sdpa_kernel(attention.SDPBackend.MATH),
                torch.no_grad(),
            ):
                torch_model(inputs)
            self.assertEqual(counter.get_total_flops(), products_of(keras_model, x) + beyond)

    @absltest.skipUnless(INSTALLED, "PyTorch and Opacus are not installed")
    @parameterized.parameters(*((workload, kind) for workload in cases.FINE_TUNED for kind in ("hooks", "ghost")))
    def test_opacus_norms_are_those_of_a_loop(self, workload, kind):
        if (workload, kind) == ("decoder_tied", "ghost"):
            self.skipTest("Opacus refuses it")
        import torch

        from noisy_sgd.experiments.benchmarks import torch_networks

        with absltest.mock.patch.multiple(networks, **SMALL):
            settings = cases.Benchmark(workload=workload, batch_size=3)
            inputs, labels = peers._torch_batch(settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                step, model = peers._torch_step(settings, kind)
                before = {name: value.clone() for name, value in model._module.state_dict().items()}
                step()
            plain = torch_networks.made(workload, inputs.shape[1:], private=True)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        if kind == "hooks":
            found = sum(weight.grad_sample.flatten(1).square().sum(1) for weight in trained).sqrt()
        else:
            found = model.per_sample_gradient_norms
        plain.load_state_dict(before)
        trained = [weight for weight in plain.parameters() if weight.requires_grad]
        for index in range(3):
            predictions = plain(inputs[index : index + 1]).flatten(0, -2)
            loss = torch.nn.functional.cross_entropy(predictions, labels[index].flatten())
            gradients = torch.autograd.grad(loss, trained)
            expected = sum(one.square().sum() for one in gradients).sqrt()
            np.testing.assert_allclose(found[index].item(), expected.item(), rtol=2e-5)


def products_of(model, x):
    """Twice the number of multiplications in the matrix products and convolutions of a model's forward pass."""
    graph = tf.function(model).get_concrete_function(tf.TensorSpec(x.shape, model.inputs[0].dtype)).graph
    total = 0
    for operation in graph.get_operations():
        outputs = operation.outputs[0].shape.num_elements() if operation.outputs else 0
        if operation.type in ("MatMul", "BatchMatMulV2"):
            transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            total += 2 * outputs * operation.inputs[0].shape[-2 if transposed else -1]
        elif operation.type == "Einsum":
            names = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {}
            for axes, tensor in zip(names, operation.inputs, strict=True):
                sizes.update(zip(axes, tensor.shape, strict=True))
            total += 2 * math.prod(sizes.values())
    return total


if __name__ == "__main__":
    absltest.main()
