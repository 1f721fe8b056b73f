"""Tests of the binary private_step_sizes, from its command line to drawn figures."""

from absl.testing import absltest

from noisy_sgd.experiments import private_step_sizes
from tests.experiments import toy_binary


class PrivateStepSizesTest(toy_binary.Tests, absltest.TestCase):
    binary = private_step_sizes
    small = ["--smoke"]
    figures = 2


if __name__ == "__main__":
    absltest.main()
