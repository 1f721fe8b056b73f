"""Tests of the binary gradient_tails, from its command line to drawn figures."""

from absl.testing import absltest

from noisy_sgd.experiments import gradient_tails
from tests.experiments import toy_binary


class GradientTailsTest(toy_binary.Tests, absltest.TestCase):
    binary = gradient_tails
    small = ["--smoke"]
    figures = 1


if __name__ == "__main__":
    absltest.main()
