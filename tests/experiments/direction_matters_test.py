"""Tests of the binary direction_matters, from its command line to drawn figures, and of what it refuses."""

import pathlib
import sys

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import direction_matters

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary


class DirectionMattersTest(toy_binary.Tests, parameterized.TestCase):
    binary = direction_matters
    small = ["--smoke", "--num_processes=1"]
    defaults = {"num_data_sets": 32, "num_runs": 10, "num_steps": 400}

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
