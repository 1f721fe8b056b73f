import importlib.util
import sys
import warnings
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.benchmarks import cases, peers

INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "opacus"))


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
        for line in lines:
            (own,) = (one for one in lines if one["library"] == line["library"] and one["algorithm"] == "sgd")
            self.assertAlmostEqual(line["ratio_to_own_sgd"], line["median_ms"] / own["median_ms"], delta=0.01)
        self.assertGreater(min(line["median_ms"] for line in lines), 0)


if __name__ == "__main__":
    absltest.main()
