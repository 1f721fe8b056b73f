"""Tests of the binary noise_threshold, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import noise_threshold
from tests.experiments import toy_binary


class NoiseThresholdTest(toy_binary.Tests, parameterized.TestCase):
    binary = noise_threshold
    small = ["--num_data_sets=1", "--num_runs=1", "--num_steps=30"]
    figures = 3

    @parameterized.parameters(
        ("--num_data_sets=0", "`--num_data_sets` must be at least 1"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
