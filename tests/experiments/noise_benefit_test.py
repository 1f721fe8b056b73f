"""Tests of the binary noise_benefit, from its command line to drawn figures."""

import pathlib
import sys

from absl.testing import absltest

from noisy_sgd.experiments import noise_benefit

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary


class NoiseBenefitTest(toy_binary.Tests, absltest.TestCase):
    binary = noise_benefit
    small = ["--smoke"]
    figures = 2


if __name__ == "__main__":
    absltest.main()
