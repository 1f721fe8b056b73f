"""Tests what clipping may take of memory: at most 1.3 times a plain step, the tensors and the process."""

import sys
import unittest

from absl.testing import absltest

from noisy_sgd.experiments import benchmark, benchmark_cases


class MemoryTest(absltest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "the peak of a process is read from /proc")
    def test_dp_sgd_takes_at_most_1_3_times_a_plain_steps_memory(self):
        # About 1.16 and 1.0; when the step was made of twice as many operations, its process took 1.44 times as much.
        settings = benchmark_cases.Benchmark(workload="wrn_16_4", batch_size=32)
        plain, private = (benchmark.peaks(settings, algorithm) for algorithm in ("sgd", "dp_sgd"))
        for name, value in plain.items():
            with self.subTest(name):
                self.assertGreater(value, 100.0)
                self.assertLess(private[name], 1.3 * value)


if __name__ == "__main__":
    absltest.main()
