"""DP-SGLD against its own definition in NumPy, against DPSGD, and the conversions against each other."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

import noisy_sgd
from noisy_sgd.optimizers import langevin, sgd
from tests.optimizers import shells

# eta, C, B, N
SETTING = (1e-3, 0.5, 24, 240)


class LangevinTest(parameterized.TestCase):
    def test_two_steps_by_its_definition(self):
        eta, clip, batch, examples = SETTING
        temperature, precision = 0.8, 30.0
        optimizer = noisy_sgd.dp_sgld(*SETTING, temperature=temperature, prior_precision=precision, seed=1)
        expected = [np.ones_like(value, np.float64) for value in shells.SUMS]
        weights = [keras.Variable(value.astype(np.float32)) for value in expected]
        optimizer.build(weights)
        for _ in range(2):
            zeros = [tf.zeros(value.shape) for value in shells.SUMS]
            # A step moves against the noised gradient: the definition's draw has the other sign.
            draws = [-np.asarray(z) / optimizer.noise_std for z in optimizer.noised(zeros, None, release=False)]
            for w, total, z in zip(expected, shells.SUMS, draws, strict=True):
                w += eta / 2 * (-precision * w - examples / batch * total) + np.sqrt(eta * temperature) * z
            optimizer.apply(shells.clipped(shells.SUMS, clip), weights)
            for weight, value in zip(weights, expected, strict=True):
                np.testing.assert_allclose(weight.numpy(), value, rtol=2e-5)

    def test_its_noise_is_that_of_the_dynamics(self):
        # 200,000 coordinates of one step without a gradient: N(0, eta T).
        weight = keras.Variable(np.zeros(200_000, np.float32))
        optimizer = noisy_sgd.dp_sgld(*SETTING, temperature=0.25, seed=5)
        optimizer.apply(shells.clipped([np.zeros(200_000)], 0.5), [weight])
        noise = weight.numpy() / np.sqrt(1e-3 * 0.25)
        self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(noise, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_at_its_noise_multiplier_it_is_dp_sgd_bit_for_bit(self):
        eta, clip, batch, examples = SETTING
        sigma = 2 * batch / (examples * clip * np.sqrt(eta))
        ours = noisy_sgd.dp_sgld(*SETTING, seed=4)
        other = sgd.DPSGD(eta * examples / 2, clip, float(sigma), batch, seed=4)
        self.assertEqual(shells.difference(shells.stepped(ours), shells.stepped(other)), 0.0)
        self.assertIs(type(ours), sgd.DPSGD)
        self.assertEqual({**ours.get_config(), "name": "dp_sgd"}, other.get_config())
        self.assertEqual(ours.event, other.event)

    def test_the_conversions_are_inverses(self):
        eta, clip, batch, examples = SETTING
        optimizer = noisy_sgd.dp_sgld(*SETTING, temperature=0.3, seed=4)
        sigma, rate = optimizer.noise_multiplier, float(eta * examples / 2)
        self.assertAlmostEqual(langevin.step_size(sigma, clip, batch, examples, temperature=0.3) / eta, 1.0, places=12)
        self.assertAlmostEqual(langevin.temperature(rate, sigma, clip, batch, examples) / 0.3, 1.0, places=12)

    @parameterized.parameters(
        ({"step_size": 0.0}, "`step_size` must be a finite number above 0. Received: step_size=0.0"),
        ({"l2_norm_clip": float("inf")}, "`l2_norm_clip` must be a finite number above 0"),
        ({"num_examples": 10}, "`batch_size` must be at most `num_examples`"),
        ({"temperature": -1.0}, "`temperature` must be a finite number at least 0"),
        ({"prior_precision": -1.0}, "`prior_precision` must be a finite number at least 0"),
        ({"clipping": "hard"}, "`clipping` must be one of"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        good = dict(zip(("step_size", "l2_norm_clip", "batch_size", "num_examples"), SETTING, strict=True))
        with self.assertRaisesRegex(ValueError, message):
            noisy_sgd.dp_sgld(**{**good, **arguments})


if __name__ == "__main__":
    absltest.main()
