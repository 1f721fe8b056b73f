"""Tests of the binary deep_diagonal, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import deep_diagonal
from tests.experiments import toy_binary


class DeepDiagonalTest(toy_binary.Tests, parameterized.TestCase):
    binary = deep_diagonal
    small = ["--num_data_sets=1", "--num_runs=1", "--num_steps=30"]
    figures = 2
    defaults = {"num_steps": 20_000}

    @parameterized.parameters(
        ("--num_steps=0", "`--num_steps` must be at least 1"),
        ("--num_runs=0", "`--num_runs` must be at least 1"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
