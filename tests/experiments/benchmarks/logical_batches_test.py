"""Tests of the sweep over logical batch sizes: a line a size, and bad input."""

import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, logical_batches


class LogicalBatchesTest(parameterized.TestCase):
    def test_a_line_an_algorithm_and_a_size(self):
        settings = cases.Benchmark(
            workload="mlp", algorithms=("noisy_sgd", "dp_sgd"), microbatch_size=4, num_rounds=6, sweep="batch_size"
        )
        lines = list(logical_batches.lines(settings, batch_sizes=(8, 16)))
        self.assertEqual([line["batch_size"] for line in lines], [8, 16, 8, 16])
        self.assertEqual([line["algorithm"] for line in lines], ["noisy_sgd"] * 2 + ["dp_sgd"] * 2)
        for line in lines:
            self.assertGreater(line["us_per_example"], 0)
            self.assertGreater(line["cpu_us_per_example"], 0)
            if pathlib.Path("/proc/self/status").exists():
                self.assertGreater(line["peak_memory_mib"], 0)
            self.assertGreater(line["finish_ms"], 0)
        self.assertIsNone(lines[0]["ratio_to_smallest"])
        for line in lines[1::2]:
            for kind in ("", "cpu_"):
                low, high = line[f"{kind}ratio_interval"]
                self.assertBetween(line[f"{kind}ratio_to_smallest"], low, high)

    @parameterized.parameters(
        ({"sweep": "size"}, "`--sweep` must be one of batch_size, input"),
        ({"sweep": "batch_size"}, "`--microbatch_size` must divide 256.*Received: microbatch_size=None"),
        ({"sweep": "batch_size", "batch_size": 96, "microbatch_size": 48}, "must divide 256.*microbatch_size=48"),
        ({"sweep": "batch_size", "microbatch_size": 64, "workload": "diagonal_linear"}, "must be a network of images"),
    )
    def test_bad_input(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            cases.Benchmark(**arguments)


if __name__ == "__main__":
    absltest.main()
