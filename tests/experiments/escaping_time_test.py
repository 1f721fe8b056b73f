"""Tests of the binary escaping_time, from its command line to drawn figures, and of what it refuses."""

import pathlib
import sys

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import escaping_time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary


class EscapingTimeTest(toy_binary.Tests, parameterized.TestCase):
    binary = escaping_time
    small = ["--smoke", "--num_processes=1"]
    defaults = {"num_data_sets": 16, "num_runs": 200, "num_steps": 10_000}

    @parameterized.parameters(
        ("--num_data_sets=0", "`--num_data_sets` must be at least 1"),
        ("--num_runs=0", "`--num_runs` must be at least 1"),
        ("--num_processes=0", "`--num_processes` must be at least 1"),
        ("--alpha=1", "Unknown command line flag 'alpha'"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
