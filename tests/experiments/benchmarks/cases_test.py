"""Tests of what the benchmark is asked for: what cannot be timed is refused in one sentence."""

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases


class BenchmarkTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"workload": "bert"}, "--workload.*wrn_16_4.*workload=bert"),
        ({"algorithms": ("sgd", "sgd")}, "--algorithm.*different"),
        ({"algorithms": ("adam",)}, "--algorithm.*adam"),
        ({"num_rounds": 0}, "--num_rounds"),
        ({"batch_size": 64, "microbatch_size": 48}, "--batch_size.*multiple"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            cases.Benchmark(**arguments)


if __name__ == "__main__":
    absltest.main()
