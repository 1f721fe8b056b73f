"""DPAdam and DPAdamW against NumPy, Keras' own, and each other on two replicas."""

import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.gradients import clipping
from noisy_sgd.optimizers import adam
from noisy_sgd.training import distribution

SUMS = [np.array([[3.0, -2.0], [0.5, 1e-3]], np.float32), np.array([-1.0, 4.0], np.float32)]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5)).astype(np.float32), RNG.integers(0, 3, 24)


def setUpModule():
    distribution.use_logical_devices(2)


def clipped(values, bound=1.0):
    return clipping.ClippedSum(values=[tf.constant(v) for v in values], norms=tf.zeros([0]), l2_sensitivity=bound)


def trained(optimizer, strategy="default", steps=4, model_class=noisy_sgd.PrivateModel):
    with distribution.make_strategy(strategy).scope():
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(8, activation="tanh")(inputs)
        model = model_class(inputs, keras.layers.Dense(3)(hidden))
        model.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=24, epochs=steps, shuffle=False, verbose=0)
    return model


class ByHandTest(parameterized.TestCase):
    @parameterized.product(noise_correction=(False, True), noise_multiplier=(0.0, 0.7))
    def test_three_steps_are_numpys(self, noise_correction, noise_multiplier):
        rate, size, b1, b2, epsilon = 0.1, 4, 0.9, 0.99, 1e-3
        optimizer = adam.DPAdam(
            rate, 1.0, noise_multiplier, size, seed=1, beta_2=b2, epsilon=epsilon, noise_correction=noise_correction
        )
        weights = [keras.Variable(np.ones_like(value)) for value in SUMS]
        optimizer.build(weights)
        expected = [np.ones_like(value, np.float64) for value in SUMS]
        means, squares = ([np.zeros_like(value, np.float64) for value in SUMS] for _ in range(2))
        for step in range(1, 4):
            sums = [step * value for value in SUMS]
            gradients = [
                np.asarray(g, np.float64) for g in optimizer.noised(list(map(tf.constant, sums)), None, release=False)
            ]
            for w, m, v, g in zip(expected, means, squares, gradients, strict=True):
                m += (1 - b1) * (g - m)
                v += (1 - b2) * (g * g - v)
                m_hat, v_hat = m / (1 - b1**step), v / (1 - b2**step)
                if noise_correction:
                    w -= rate * m_hat / np.sqrt(np.maximum(v_hat - (noise_multiplier / size) ** 2, epsilon))
                else:
                    # Keras puts its epsilon beside the root before the correction of its bias.
                    alpha = rate * np.sqrt(1 - b2**step) / (1 - b1**step)
                    w -= m * alpha / (np.sqrt(v) + epsilon)
            optimizer.apply(clipped(sums), weights)
            for weight, value in zip(weights, expected, strict=True):
                np.testing.assert_allclose(weight.numpy(), value, rtol=2e-5)

    def test_the_correction_subtracts_the_variance_of_the_noise(self):
        # Noise alone: the second moment is all noise, and what is left of it is nothing.
        size = 4000
        weight = keras.Variable(np.zeros(size, np.float32))
        optimizer = adam.DPAdam(1.0, 1.0, 8.0, 4, seed=2, beta_1=0.0, beta_2=0.999, epsilon=1e-6, noise_correction=True)
        for _ in range(200):
            optimizer.apply(clipped([np.zeros(size, np.float32)]), [weight])
        unbiased = optimizer._velocities[0].numpy() / (1 - 0.999**200)
        self.assertAlmostEqual(float(np.mean(unbiased - (8.0 / 4) ** 2)), 0.0, delta=5 * 4 * np.sqrt(2 / (200 * size)))


class EqualsKerasTest(parameterized.TestCase):
    @parameterized.parameters((adam.DPAdam, keras.optimizers.Adam), (adam.DPAdamW, keras.optimizers.AdamW))
    def test_without_noise_and_clipping(self, private, public):
        for arguments in ({}, {"amsgrad": True, "beta_1": 0.8}, {"weight_decay": 0.01}):
            ours = trained(lambda a=arguments: private(0.02, float("inf"), 0.0, 24, **a))
            theirs = trained(lambda a=arguments: public(0.02, **a), model_class=keras.Model)
            for one, other in zip(ours.weights, theirs.weights, strict=True):
                np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6)

    def test_weight_decay_is_kerass_own(self):
        self.assertEqual(adam.DPAdamW(0.1, 1.0, 1.0, 4).weight_decay, 0.004)
        self.assertIsNone(adam.DPAdam(0.1, 1.0, 1.0, 4).weight_decay)


class DistributedTest(parameterized.TestCase):
    @parameterized.parameters(False, True)
    def test_two_replicas_are_one(self, noise_correction):
        def optimizer():
            return adam.DPAdam(0.02, 0.5, 1.0, 24, seed=4, epsilon=1e-3, noise_correction=noise_correction)

        one, two = trained(optimizer), trained(optimizer, "mirrored")
        for single, mirrored in zip(one.weights, two.weights, strict=True):
            np.testing.assert_allclose(single.numpy(), mirrored.numpy(), atol=1e-5)


class ShellTest(parameterized.TestCase):
    @parameterized.parameters(adam.DPAdam, adam.DPAdamW)
    def test_config_round_trip(self, kind):
        optimizer = kind(0.1, 2.0, 1.5, 4, clipping="automatic", beta_1=0.8, noise_correction=True)
        rebuilt = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
        self.assertIsInstance(rebuilt, kind)
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())
        self.assertTrue(rebuilt.noise_correction)
        self.assertIsNone(rebuilt.seed)

    def test_save_and_load(self):
        model = trained(lambda: adam.DPAdam(0.02, 1.0, 1.0, 24, noise_correction=True, seed=3))
        path = os.path.join(tempfile.mkdtemp(), "model.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
        self.assertTrue(loaded.optimizer.noise_correction)
        for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
        loaded.fit(X, Y, batch_size=24, verbose=0)

    def test_bare_gradients_are_refused(self):
        with self.assertRaisesRegex(TypeError, "`DPAdam` needs gradients clipped per example"):
            adam.DPAdam(0.1, 1.0, 1.0, 4).apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])

    @parameterized.parameters(
        ({"noise_correction": 1}, "`noise_correction` must be True or False. Received: noise_correction=1"),
        ({"noise_correction": True, "amsgrad": True}, "`amsgrad` must be False with `noise_correction`"),
        (
            {"noise_correction": True, "adaptive_clipping": noisy_sgd.AdaptiveClipping()},
            "`noise_correction` must be False where `adaptive_clipping`",
        ),
        ({"clipnorm": 1.0}, "`clipnorm` is not supported"),
        ({"noise_multiplier": -1.0}, "`noise_multiplier` must be"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        good = {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 1.0, "batch_size": 4}
        with self.assertRaisesRegex(ValueError, message):
            adam.DPAdam(**{**good, **arguments})


if __name__ == "__main__":
    absltest.main()
