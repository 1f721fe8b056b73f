"""Tests of the binary sparse_features, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest

from noisy_sgd.experiments import sparse_features
from tests.experiments import toy_binary


class SparseFeaturesTest(toy_binary.CaseTests, absltest.TestCase):
    binary = sparse_features
    defaults = {"num_data_sets": 32, "num_runs": 5, "num_steps": 60_000}


if __name__ == "__main__":
    absltest.main()
