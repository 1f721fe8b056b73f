"""Extrapolated SGD against EXTRAP-SGD in NumPy, and its noisy and private versions against NoisySGD and DPSGD."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.optimizers import extrapolation, sgd
from noisy_sgd.training import distribution
from tests.optimizers import shells


def setUpModule():
    distribution.use_logical_devices(2)


def private(**arguments):
    return extrapolation.DPExtrapSGD(0.5, 0.5, 1.0, 24, seed=4, **{"extrapolation": 0.7, "momentum": 0.5, **arguments})


def noisy(**arguments):
    return extrapolation.NoisyExtrapSGD(0.5, 0.02, seed=4, **{"extrapolation": 0.7, "momentum": 0.5, **arguments})


class ByHandTest(absltest.TestCase):
    def test_three_private_steps_are_numpys(self):
        optimizer = extrapolation.DPExtrapSGD(0.5, 1.0, 1.5, 4, seed=1, extrapolation=0.3, momentum=0.9)
        expected = [np.ones_like(value, np.float64) for value in shells.SUMS]
        weights = [keras.Variable(value.astype(np.float32)) for value in expected]
        velocities, previous = ([np.zeros_like(value) for value in expected] for _ in range(2))
        optimizer.build(weights)
        for _ in range(3):
            noised = optimizer.noised(list(map(tf.constant, shells.SUMS)), None, release=False)
            for w, v, p, g in zip(expected, velocities, previous, map(np.asarray, noised), strict=True):
                v[...] = 0.9 * v - 0.5 * (g + 0.3 * (g - p))
                w += v
                p[...] = g
            optimizer.apply(shells.clipped(shells.SUMS), weights)
            for weight, value in zip(weights, expected, strict=True):
                np.testing.assert_allclose(weight.numpy(), value, rtol=2e-5)

    def test_it_is_extrap_sgd_whose_gradients_are_taken_ahead(self):
        # Least squares with noise on the gradient; w and the point ahead u as in the paper's own form.
        rng = np.random.default_rng(1)
        features, targets = rng.normal(size=(6, 4)), rng.normal(size=6)
        noise, rate, ahead = 0.1 * rng.normal(size=(20, 4)), 0.05, 0.03

        def slope(point):
            return features.T @ (features @ point - targets) / 6

        weight = keras.Variable(np.ones(4), dtype="float64")
        optimizer = extrapolation.ExtrapSGD(rate, extrapolation=ahead / rate)
        w, last = np.ones(4), np.zeros(4)
        for step in range(20):
            u = w - ahead * last
            np.testing.assert_allclose(weight.numpy(), u, rtol=1e-6)
            last = slope(u) + noise[step]
            w = w - rate * last
            optimizer.apply([tf.constant(slope(weight.numpy()) + noise[step])], [weight])


class IdentityTest(absltest.TestCase):
    def test_with_coefficient_0_it_is_the_usual_optimizer_bit_for_bit(self):
        usual = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        none = {**usual, "extrapolation": 0.0}
        for ours, other in (
            (private(**none), sgd.DPSGD(0.5, 0.5, 1.0, 24, seed=4, **usual)),
            (noisy(**none), sgd.NoisySGD(0.5, 0.02, seed=4, **usual)),
            (extrapolation.ExtrapSGD(0.5, **none), keras.optimizers.SGD(0.5, **usual)),
        ):
            self.assertEqual(shells.difference(shells.stepped(ours), shells.stepped(other)), 0.0)
            self.assertLen(ours.variables, len(other.variables))

    def test_it_costs_what_dp_sgd_costs(self):
        self.assertEqual(private().event, sgd.DPSGD(0.5, 0.5, 1.0, 24).event)

    def test_its_state_is_one_slot_per_weight(self):
        weights = [keras.Variable(value) for value in shells.SUMS]
        counts = []
        for optimizer in (private(momentum=0.0), sgd.DPSGD(0.5, 0.5, 1.0, 24)):
            optimizer.build(weights)
            counts.append(len(optimizer.variables))
        self.assertEqual(counts[0] - counts[1], 2)


class PrivateShellTest(shells.Shell, parameterized.TestCase):
    def make(self, **arguments):
        return private(**arguments)

    def test_bare_gradients_are_refused(self):
        with self.assertRaisesRegex(TypeError, "`DPExtrapSGD` needs gradients clipped per example"):
            self.make().apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])

    @parameterized.parameters(-0.1, float("inf"), None)
    def test_bad_coefficients_are_refused(self, coefficient):
        for make in (private, noisy):
            with self.assertRaisesRegex(
                ValueError, "`extrapolation` must be a finite number at least 0. Received: extrapolation="
            ):
                make(extrapolation=coefficient)


class NoisyShellTest(absltest.TestCase):
    def test_config_round_trip(self):
        optimizer = noisy()
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertIs(type(rebuilt), type(optimizer))
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())


if __name__ == "__main__":
    absltest.main()
