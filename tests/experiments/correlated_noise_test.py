"""Tests of the binary correlated_noise, from its command line to drawn figures, and of what it refuses."""

import pathlib
import sys

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import correlated_noise

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary


class CorrelatedNoiseTest(toy_binary.Tests, parameterized.TestCase):
    binary = correlated_noise
    small = ["--smoke", "--num_processes=1"]
    figures = 2

    @parameterized.parameters(
        ("--num_data_sets=0", "`--num_data_sets` must be at least 1"),
        ("--num_tuning_data_sets=0", "`--num_tuning_data_sets` must be at least 1"),
        ("--num_runs=0", "`--num_runs` must be at least 1"),
        ("--alpha=1", "Unknown command line flag 'alpha'"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
