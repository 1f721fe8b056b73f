"""Tests of the binary private_step_sizes, from its command line to drawn figures."""

import pathlib
import sys

from absl.testing import absltest

from noisy_sgd.experiments import private_step_sizes

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary


class PrivateStepSizesTest(toy_binary.Tests, absltest.TestCase):
    binary = private_step_sizes
    small = ["--smoke"]
    figures = 2


if __name__ == "__main__":
    absltest.main()
