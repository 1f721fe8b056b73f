"""Random sparsification against its equation in NumPy, against DPSGD, and the law of its masks."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling
from noisy_sgd.gradients import clipped_sum
from noisy_sgd.mechanisms import correlated, sparsified
from noisy_sgd.optimizers import sgd, sparsification
from noisy_sgd.training import distribution
from tests import oracles
from tests.optimizers import shells


def setUpModule():
    distribution.use_logical_devices(2)


def sparse(**arguments):
    own = {"final_rate": 0.6, "ramp_steps": 2, "momentum": 0.5, "seed": 4, **arguments}
    return sparsification.DPSparseSGD(0.5, 0.3, 1.0, 24, **own)


class ByHandTest(parameterized.TestCase):
    @parameterized.parameters("book_keeping", "vectorized")
    def test_three_steps_are_numpys(self, engine):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)])
        weights = model.trainable_weights
        optimizer, usual = sparse(momentum=0.0), sgd.DPSGD(0.5, 0.3, 1.0, 24, seed=4)
        for each in (optimizer, usual):
            each.build(weights)
        left_out = []
        for _ in range(3):
            masks = [mask.numpy() for mask in optimizer.coordinates(weights)]
            left_out.append(sum(np.sum(mask == 0) for mask in masks))
            gradients = oracles.gradients(model, oracles.cross_entropy, shells.X, shells.Y)
            masked = [[m * g for m, g in zip(masks, one, strict=True)] for one in gradients]
            sums = [sum(parts) for parts in zip(*map(oracles.flat(0.3), masked), strict=True)]
            noise = usual.noised([tf.zeros(weight.shape) for weight in weights], None)
            usual.iterations.assign_add(1)
            before = [weight.numpy() for weight in weights]
            clipped = clipped_sum.clipped_gradient_sum(
                model,
                oracles.cross_entropy,
                shells.X,
                shells.Y,
                l2_norm_clip=0.3,
                coordinates=optimizer.coordinates,
                engine=engine,
            )
            np.testing.assert_allclose(clipped.norms, [oracles.length(one) for one in masked], rtol=1e-5)
            optimizer.apply(clipped, weights)
            for weight, start, total, m, z in zip(weights, before, sums, masks, noise, strict=True):
                np.testing.assert_allclose(weight.numpy(), start - 0.5 * (total / 24 + m * z.numpy()), atol=2e-6)
        self.assertEqual(left_out[0], 0)
        self.assertGreater(min(left_out[1:]), 0)


class MaskTest(absltest.TestCase):
    def test_its_fraction_rises_to_the_final_rate(self):
        # 200,000 coordinates: five standard deviations of their mean are at most 0.0056.
        chosen = sparsified.RandomCoordinates(0.8, 10, seed=3)
        like = [tf.zeros([400, 500])]
        masks = {step: chosen.of(like, step)[0].numpy().ravel() for step in (0, 5, 10, 11, 1000)}
        for step, rate in ((0, 0.0), (5, 0.4), (10, 0.8), (11, 0.8), (1000, 0.8)):
            self.assertEqual(set(np.unique(masks[step])) - {0.0, 1.0}, set())
            deviation = np.sqrt(rate * (1 - rate) / 200_000)
            self.assertAlmostEqual(float(np.mean(masks[step] == 0)), rate, delta=5 * deviation + 1e-12)
        self.assertLess(abs(np.corrcoef(masks[10], masks[11])[0, 1]), 5 / np.sqrt(200_000))
        np.testing.assert_array_equal(chosen.of(like, 5)[0].numpy().ravel(), masks[5])
        other = sparsified.RandomCoordinates(0.8, 10, seed=4).of(like, 10)[0].numpy().ravel()
        self.assertLess(abs(np.corrcoef(masks[10], other)[0, 1]), 5 / np.sqrt(200_000))

    def test_the_noise_is_on_the_other_coordinates_alone(self):
        # 100,000 coordinates, half of them left out; the others have all of DP-SGD's noise.
        optimizer = sparsification.DPSparseSGD(1.0, 2.0, 3.0, 10, seed=1, final_rate=0.5, ramp_steps=1)
        weight = keras.Variable(np.zeros(100_000, np.float32))
        optimizer.build([weight])
        optimizer.iterations.assign(7)
        kept = optimizer.coordinates([weight])[0].numpy() == 1
        optimizer.apply(shells.clipped([np.zeros(100_000)], 2.0), [weight])
        self.assertTrue(np.all(weight.numpy()[~kept] == 0))
        self.assertAlmostEqual(float(weight.numpy()[kept].std()) / 0.6, 1.0, delta=5 / np.sqrt(2 * kept.sum()))


class IdentityTest(parameterized.TestCase):
    def test_at_rate_0_it_is_dp_sgd_bit_for_bit(self):
        ours, other = sparse(final_rate=0.0), sgd.DPSGD(0.5, 0.3, 1.0, 24, seed=4, momentum=0.5)
        self.assertEqual(shells.difference(shells.stepped(ours), shells.stepped(other)), 0.0)
        self.assertIsNone(ours.clip.coordinates)

    def test_with_all_coordinates_its_step_is_dp_sgds_bit_for_bit(self):
        # The first step of every ramp, by the same engine.
        ours = shells.trained(sparse, epochs=1, engine="vectorized")
        usual = sgd.DPSGD(0.5, 0.3, 1.0, 24, seed=4, momentum=0.5)
        self.assertEqual(shells.difference(ours, shells.trained(lambda: usual, epochs=1, engine="vectorized")), 0.0)

    @parameterized.parameters(1.0, 1e-12, 1e12)
    def test_masked_norms_of_any_size_are_exact(self, scale):
        # Entries of very different sizes, and masks that leave only small ones; squares below 1e-38 are 0 everywhere.
        rng = np.random.default_rng(2)
        x = (rng.normal(size=(20, 7)) * 10.0 ** rng.integers(-9, 1, (20, 7))).astype(np.float32)
        model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3, use_bias=False)])
        slopes = (rng.normal(size=(20, 3)) * 10.0 ** rng.integers(-9, 1, (20, 3)) * scale).astype(np.float32)
        mask = (rng.random((7, 3)) < 0.3).astype(np.float32)
        found = clipped_sum.clipped_gradient_sum(
            model, lambda y, z: tf.reduce_sum(y * z, axis=-1), x, slopes, l2_norm_clip=1.0, engine="book_keeping",
            coordinates=lambda weights: [tf.constant(mask)],
        )  # fmt: skip
        formed = mask * np.float64(x)[:, :, None] * np.float64(slopes)[:, None]
        np.testing.assert_allclose(found.norms, np.sqrt(np.square(formed).sum(axis=(1, 2))), rtol=1e-5, atol=1e-18)

    def test_it_costs_what_dp_sgd_costs(self):
        plans = [
            privacy.Plan(event=each.mechanism, sampling=sampling.Poisson(1000, 24), num_steps=10, delta=1e-5)
            for each in (sparse(seed=None), sgd.DPSGD(0.5, 0.3, 1.0, 24))
        ]
        self.assertEqual(plans[0].epsilon, plans[1].epsilon)
        said = privacy.statement.statement("dp_sgd", plans[0])
        self.assertTrue(said.guaranteed)
        self.assertIn("gradients set to zero at random coordinates, each with probability at most 0.6", said.text)

    def test_correlated_noise_is_priced_as_dp_sgds_attempt_by_attempt(self):
        noise = correlated.CorrelatedNoise.lambda_cgd(0.9)
        found = []
        for each in (sparse(seed=None, noise=noise), sgd.DPSGD(0.5, 0.3, 1.0, 24, noise=noise)):
            plan = privacy.Plan(event=each.mechanism, sampling=sampling.Cyclic(240, 24), num_steps=0, delta=1e-5)
            found.append((plan.with_attempts([20, 10]).epsilon, each.mechanism.variance_shares))
            self.assertFalse(plan.independent_steps)
        self.assertEqual(*found)


class ShellTest(shells.Shell, parameterized.TestCase):
    def make(self, **arguments):
        return sparse(**arguments)

    def test_a_layer_without_norms_of_coordinates_takes_the_slow_engine(self):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6, 6, 1))
        outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs)))
        model, images = keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(24, 6, 6, 1))
        optimizer = sparse(ramp_steps=1)
        optimizer.build(model.trainable_weights)
        optimizer.iterations.assign(3)

        def of(engine):
            return clipped_sum.clipped_gradient_sum(
                model, oracles.cross_entropy, images.astype(np.float32), shells.Y, l2_norm_clip=0.3, engine=engine,
                coordinates=optimizer.coordinates,
            )  # fmt: skip

        with self.assertRaisesRegex(ValueError, "'conv2d.*no norms of gradients at some coordinates only"):
            of("book_keeping")
        for one, other in zip(of("auto").values, of("vectorized").values, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_bare_gradients_are_refused(self):
        with self.assertRaisesRegex(TypeError, "`DPSparseSGD` needs gradients clipped per example"):
            self.make().apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])

    @parameterized.parameters(
        ({"final_rate": 1.0}, "`final_rate` must be a finite number at least 0 and below 1. Received: final_rate=1.0"),
        ({"final_rate": -0.1}, "`final_rate` must be"),
        ({"ramp_steps": 0}, "`ramp_steps` must be a whole number of at least 1"),
        ({"mask_seed": None}, "`mask_seed` must be an integer"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            self.make(**arguments)


if __name__ == "__main__":
    absltest.main()
