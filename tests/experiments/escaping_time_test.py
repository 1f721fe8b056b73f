"""Tests of the binary escaping_time, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest

from noisy_sgd.experiments import escaping_time
from tests.experiments import toy_binary


class EscapingTimeTest(toy_binary.CaseTests, absltest.TestCase):
    binary = escaping_time
    defaults = {"num_data_sets": 16, "num_runs": 200, "num_steps": 10_000}


if __name__ == "__main__":
    absltest.main()
