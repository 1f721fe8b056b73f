"""LARS against NumPy and Keras' SGD, and its noisy and private versions against NoisySGD and DPSGD."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.optimizers import lars, sgd
from noisy_sgd.training import distribution
from tests.optimizers import shells


def setUpModule():
    distribution.use_logical_devices(2)


def private(**arguments):
    return lars.DPLARS(0.5, 0.5, 1.0, 24, seed=4, **{"momentum": 0.9, "trust_coefficient": 0.3, **arguments})


def noisy(**arguments):
    return lars.NoisyLARS(0.5, 0.02, seed=4, **{"momentum": 0.9, "trust_coefficient": 0.3, **arguments})


class ByHandTest(parameterized.TestCase):
    @parameterized.parameters(0.0, 1.5)
    def test_three_private_steps_are_numpys(self, noise_multiplier):
        # The ratio is that of the noised gradient: with noise, the one of the clean gradient gives other steps.
        rate, trust, momentum = 0.5, 0.1, 0.9
        optimizer = lars.DPLARS(
            rate, 1.0, noise_multiplier, 4, seed=1, trust_coefficient=trust, momentum=momentum, nesterov=False
        )
        expected = [np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([1.0, 1.0])]
        weights = [keras.Variable(value.astype(np.float32)) for value in expected]
        velocities = [np.zeros_like(value) for value in expected]
        optimizer.build(weights)
        for _ in range(3):
            noised = optimizer.noised(list(map(tf.constant, shells.SUMS)), None, release=False)
            for w, v, g in zip(expected, velocities, map(np.asarray, noised), strict=True):
                ratio = trust * np.linalg.norm(w) / np.linalg.norm(g) if w.ndim > 1 else 1.0
                v[...] = momentum * v - rate * ratio * g
                w += v
            optimizer.apply(shells.clipped(shells.SUMS), weights)
            for weight, value in zip(weights, expected, strict=True):
                np.testing.assert_allclose(weight.numpy(), value, rtol=2e-5)

    def test_the_noise_is_in_the_ratio(self):
        # Noise alone: the step is as long as trust * ||w||, whatever the noise. A clean ratio would be 1 or infinite.
        for kind in (lars.DPLARS(1.0, 1.0, 100.0, 4, seed=1), lars.NoisyLARS(1.0, 25.0, seed=1)):
            weight = keras.Variable(np.full([20, 30], 2.0, np.float32))
            zeros = np.zeros([20, 30], np.float32)
            kind.apply(shells.clipped([zeros]) if isinstance(kind, lars.DPLARS) else [tf.constant(zeros)], [weight])
            self.assertAlmostEqual(np.linalg.norm(weight.numpy() - 2.0) / (0.001 * 2 * np.sqrt(600)), 1.0, places=4)

    def test_limits_and_norms_of_zero(self):
        start, slope = np.array([[3.0, 4.0]], np.float32), np.array([[0.0, 2.0]], np.float32)
        for limits, zero, ratio in (
            (None, False, 0.5 * 5 / 2),
            ((0.0, 0.7), False, 0.7),
            ((2, 9), False, 2.0),
            (None, True, 1.0),
        ):
            weight = keras.Variable(start * (not zero))
            before = weight.numpy()
            lars.LARS(1.0, trust_coefficient=0.5, trust_limits=limits).apply([tf.constant(slope)], [weight])
            np.testing.assert_allclose(weight.numpy(), before - ratio * slope, rtol=1e-6)
        weight = keras.Variable(start)
        lars.LARS(1.0).apply([tf.zeros([1, 2])], [weight])
        np.testing.assert_array_equal(weight.numpy(), start)

    def test_a_sparse_gradient_counts_as_dense(self):
        weights = [keras.Variable(np.ones([4, 2], np.float32)) for _ in range(2)]
        slices = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([1, 1]), tf.constant([4, 2]))
        for weight, gradient in zip(weights, (slices, tf.convert_to_tensor(slices)), strict=True):
            lars.LARS(1.0).apply([gradient], [weight])
        np.testing.assert_array_equal(weights[0].numpy(), weights[1].numpy())


class IdentityTest(absltest.TestCase):
    def test_with_trust_1_it_is_the_usual_optimizer_bit_for_bit(self):
        one = {"trust_limits": (1.0, 1.0), "weight_decay": 0.01, "nesterov": True}
        usual = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        for ours, other in (
            (private(**one), sgd.DPSGD(0.5, 0.5, 1.0, 24, seed=4, **usual)),
            (noisy(**one), sgd.NoisySGD(0.5, 0.02, seed=4, **usual)),
            (lars.LARS(0.5, momentum=0.9, **one), keras.optimizers.SGD(0.5, **usual)),
        ):
            self.assertEqual(shells.difference(shells.stepped(ours), shells.stepped(other)), 0.0)

    def test_it_costs_what_dp_sgd_costs(self):
        ours, other = private(), sgd.DPSGD(0.5, 0.5, 1.0, 24, seed=4)
        self.assertEqual(ours.event, other.event)
        self.assertEqual(ours.mechanism.in_words("clipped to norm"), other.mechanism.in_words("clipped to norm"))


class PrivateShellTest(shells.Shell, parameterized.TestCase):
    def make(self, **arguments):
        return private(**arguments)

    def test_bare_gradients_are_refused(self):
        with self.assertRaisesRegex(TypeError, "`DPLARS` needs gradients clipped per example"):
            self.make().apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])

    @parameterized.parameters(
        ({"trust_coefficient": 0.0}, "`trust_coefficient` must be .* above 0. Received: trust_coefficient=0.0"),
        ({"trust_coefficient": float("nan")}, "Received: trust_coefficient=nan"),
        ({"trust_limits": 1.0}, "`trust_limits` must be two numbers, 0 <= smallest <= largest, or None. Receiv"),
        ({"trust_limits": (2.0, 1.0)}, r"Received: trust_limits=\(2.0, 1.0\)"),
        ({"trust_limits": (-1.0, 1.0)}, "`trust_limits` must be"),
        ({"trust_limits": (0.0, float("nan"))}, "`trust_limits` must be"),
        ({"trust_limits": ("a", 1.0)}, "`trust_limits` must be"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        for make in (private, noisy):
            with self.assertRaisesRegex(ValueError, message):
                make(**arguments)


class NoisyShellTest(absltest.TestCase):
    def test_config_round_trip(self):
        optimizer = noisy(trust_limits=(0.1, float("inf")))
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertIs(type(rebuilt), type(optimizer))
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())


if __name__ == "__main__":
    absltest.main()
