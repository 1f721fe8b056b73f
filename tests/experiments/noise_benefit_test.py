"""Tests of the binary noise_benefit, from its command line to drawn figures."""

from absl.testing import absltest

from noisy_sgd.experiments import noise_benefit
from tests.experiments import toy_binary


class NoiseBenefitTest(toy_binary.Tests, absltest.TestCase):
    binary = noise_benefit
    small = ["--smoke"]
    figures = 2


if __name__ == "__main__":
    absltest.main()
