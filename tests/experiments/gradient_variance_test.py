"""Tests of the binary gradient_variance, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest

from noisy_sgd.experiments import gradient_variance
from tests.experiments import toy_binary


class GradientVarianceTest(toy_binary.CaseTests, absltest.TestCase):
    binary = gradient_variance
    defaults = {"num_data_sets": 16, "num_runs": 20_000, "num_steps": 2}


if __name__ == "__main__":
    absltest.main()
