"""Tests of the binary many_data_sets, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest

from noisy_sgd.experiments import many_data_sets
from tests.experiments import toy_binary


class ManyDataSetsTest(toy_binary.CaseTests, absltest.TestCase):
    binary = many_data_sets
    defaults = {"num_steps": 200_000}


if __name__ == "__main__":
    absltest.main()
