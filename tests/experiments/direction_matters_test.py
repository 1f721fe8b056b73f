"""Tests of the binary direction_matters, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest

from noisy_sgd.experiments import direction_matters
from tests.experiments import toy_binary


class DirectionMattersTest(toy_binary.CaseTests, absltest.TestCase):
    binary = direction_matters
    defaults = {"num_data_sets": 32, "num_runs": 10, "num_steps": 400}


if __name__ == "__main__":
    absltest.main()
