"""Total amount of noise: the paper's numbers and its invariances."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy
from noisy_sgd.privacy import tan


class TanTest(parameterized.TestCase):
    def test_the_imagenet_run(self):
        size = privacy.tan.eta(2.5, 16384, 1281167, 72000)
        self.assertAlmostEqual(size, 0.9706, places=4)
        self.assertAlmostEqual(privacy.tan.epsilon_tan(size, 8e-7), 8.22, delta=0.005)
        self.assertAlmostEqual(tan.eta(2.5, 16384, 1281167, 1), 3.617e-3, places=6)

    @parameterized.parameters(1, 128, 16384, 32768)
    def test_constant_effective_noise_keeps_eta(self, batch_size):
        noise_multiplier = tan.scale_to_batch(2.5, 16384, batch_size)
        self.assertAlmostEqual(noise_multiplier / batch_size, 2.5 / 16384, delta=1e-15)
        np.testing.assert_allclose(
            tan.eta(noise_multiplier, batch_size, 1281167, 72000), tan.eta(2.5, 16384, 1281167, 72000)
        )

    def test_little_noise_scales_too(self):
        self.assertEqual([tan.scale_to_batch(noise, 64, 128) for noise in (0.0, 0.25)], [0.0, 0.5])

    def test_twice_the_rate_for_a_quarter_of_the_steps_keeps_eta(self):
        np.testing.assert_allclose(tan.eta(2.5, 32768, 1281167, 18000), tan.eta(2.5, 16384, 1281167, 72000))

    def test_it_estimates_the_accountant_where_noise_is_large_and_not_where_it_is_small(self):
        def ratio(batch_size):
            noise_multiplier = tan.scale_to_batch(2.5, 16384, batch_size)
            accounted = privacy.epsilon(
                noise_multiplier, batch_size, 1281167, 72000, 8e-7, sampling="poisson", accountant="rdp"
            )
            return accounted / tan.epsilon_tan(tan.eta(noise_multiplier, batch_size, 1281167, 72000), 8e-7)

        self.assertBetween(ratio(32768), 0.9, 1.1)
        self.assertGreater(ratio(2048), 2.0)  # the privacy wall

    def test_no_steps_no_epsilon(self):
        self.assertEqual(tan.epsilon_tan(tan.eta(2.5, 64, 1797, 0), 1e-5), 0.0)

    @parameterized.parameters(
        (lambda: tan.eta(0.0, 64, 1797, 280), "noise_multiplier=0.0"),
        (lambda: tan.eta(1.0, 1798, 1797, 280), "batch_size=1798"),
        (lambda: tan.epsilon_tan(-1.0, 1e-5), "eta=-1.0"),
        (lambda: tan.epsilon_tan(1.0, 1.0), "delta=1.0"),
        (lambda: tan.scale_to_batch(math.nan, 64, 128), "noise_multiplier=nan"),
        (lambda: tan.scale_to_batch(1.0, 64, 0), "new_batch_size=0"),
    )
    def test_nonsense_is_refused(self, call, received):
        with self.assertRaisesRegex(ValueError, f"Received: {received}"):
            call()


if __name__ == "__main__":
    absltest.main()
