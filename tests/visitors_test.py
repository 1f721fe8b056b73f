"""What a visitor adds without touching a file of ours: an optimizer, a mechanism, a sampling scheme.

Each is written here as it would be in a package of the visitor's own, trained, and accounted for.
"""

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import privacy, sampling
from noisy_sgd.data import bundled, streaming
from noisy_sgd.mechanisms import gaussian, mechanism

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype(np.float32), RNG.integers(0, 3, 32)


@keras.saving.register_keras_serializable(package="visitor")
class DPLion(noisy_sgd.PrivateUpdate, keras.optimizers.Lion):
    """A private version of one of Keras' optimizers."""


@keras.saving.register_keras_serializable(package="visitor")
class DoubledNoise(mechanism.Recipe):
    """Independent Gaussian noise of twice the size that was asked for."""

    def make(self, l2_norm_clip, noise_multiplier, batch_size, key):
        return gaussian.GaussianSumQuery(l2_norm_clip, 2 * noise_multiplier * l2_norm_clip, key)


class EveryOther(sampling.Scheme):
    """All examples of even number in even steps, all others in odd ones."""

    name = "every_other"

    def indices(self, step):
        return np.arange(step % 2, self.num_examples, 2)

    def size(self, step):
        return len(self.indices(step))

    def participation(self, num_steps, *, batches_known=False):
        return sampling.Participation(times=-(-num_steps // 2), separation=2)

    def counted_steps(self, first, end):
        return 2 * -(-(end - first) // 2)


def fitted(optimizer, epochs=2, batch_size_of_compile=None, **arguments):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, batch_size=batch_size_of_compile)
    model.fit(X, Y, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return model


class OptimizerTest(absltest.TestCase):
    def test_without_noise_it_is_kerass_own(self):
        ours = fitted(DPLion(0.01, l2_norm_clip=1e6, noise_multiplier=0.0, batch_size=8, weight_decay=0.1))
        keras.utils.set_random_seed(1)
        theirs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        theirs.compile(
            keras.optimizers.Lion(0.01, weight_decay=0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        theirs.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        for one, other in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6)

    def test_it_keeps_a_budget_and_its_config(self):
        optimizer = DPLion(0.01, l2_norm_clip=1.0, noise_multiplier=2.0, batch_size=8)
        budget = noisy_sgd.PrivacyBudget(100.0, delta=1e-3, num_examples=32)
        fitted(optimizer, callbacks=[budget])
        self.assertEqual(budget.spent, privacy.epsilon(2.0, 8, 32, 8, 1e-3, sampling="shuffled"))
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())

    def test_it_refuses_bare_gradients(self):
        with self.assertRaisesRegex(TypeError, "`DPLion` needs gradients clipped per example"):
            DPLion(0.01, 1.0, 1.0, 8).apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])


class MechanismTest(parameterized.TestCase):
    @parameterized.parameters(noisy_sgd.DPSGD, noisy_sgd.DPAdam)
    def test_it_adds_its_noise_and_is_priced_by_it(self, kind):
        size = 100_000
        doubled = kind(0.1, 1.5, 2.0, 8, seed=3, noise=DoubledNoise())
        usual = kind(0.1, 1.5, 4.0, 8, seed=3)
        for optimizer in (doubled, usual):
            optimizer.build([keras.Variable(np.zeros(size, np.float32))])
        noises = [
            optimizer.noised([tf.zeros([size])], None, release=False)[0].numpy() for optimizer in (doubled, usual)
        ]
        np.testing.assert_allclose(*noises, rtol=1e-6)
        self.assertAlmostEqual(float(np.std(noises[0])), 4.0 * 1.5 / 8, delta=5 * 0.75 / np.sqrt(2 * size))
        self.assertEqual(doubled.event, dp_accounting.GaussianDpEvent(4.0))
        self.assertEqual(doubled.noise_std, 0.75)

    def test_it_trains_accounts_and_is_saved(self):
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 1.0, 8, noise=DoubledNoise())
        budget = noisy_sgd.PrivacyBudget(100.0, delta=1e-3, num_examples=32)
        fitted(optimizer, callbacks=[budget])
        self.assertEqual(budget.spent, privacy.epsilon(2.0, 8, 32, 8, 1e-3, sampling="shuffled"))
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertIsInstance(rebuilt.noise, DoubledNoise)
        self.assertEqual(rebuilt.event, dp_accounting.GaussianDpEvent(2.0))


class SamplingTest(absltest.TestCase):
    def test_it_is_streamed_and_accounted_for(self):
        digits = bundled.load("digits")
        scheme = EveryOther(digits.num_train_examples, 64, seed=0)
        batches = list(streaming.stream(digits, scheme, 500, num_steps=2))
        seen = [labels.numpy()[mask.numpy()] for _, labels, mask in batches]
        np.testing.assert_array_equal(np.concatenate(seen[:2]), digits.train_labels[::2])
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 3.0, 64)
        plan = privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=9, delta=1e-5)
        self.assertEqual(plan.epsilon, privacy.epsilon(3.0, 1, 1, 5, 1e-5, sampling="shuffled"))
        # Two attempts at step 0 alone: its examples took part twice.
        self.assertEqual(
            privacy.ledger.spent(privacy.ledger.Ledger(((0, 1), (0, 1))), plan), plan.with_steps(4).epsilon
        )
        said = privacy.statement.statement("dp_sgd", plan)
        self.assertTrue(said.guaranteed)
        self.assertIn("every_other, an example takes part in at most 5 steps", said.text)

    def test_it_draws_the_batches_of_a_fit(self):
        budget = noisy_sgd.PrivacyBudget(100.0, delta=1e-3, num_examples=32)
        optimizer = noisy_sgd.NoisySGD(0.1, 0.0, seed=0)
        private = noisy_sgd.DPSGD(0.1, 1.0, 2.0, 16)
        model = fitted(private, steps_per_epoch=2, callbacks=[budget], sampling=EveryOther)
        self.assertIsInstance(model.sampling, EveryOther)
        plan = privacy.Plan(event=private.mechanism, sampling=model.sampling, num_steps=4, delta=1e-3)
        self.assertEqual(budget.spent, plan.epsilon)
        # Two steps of all examples of even number, then of odd number, by Keras.
        ours = fitted(optimizer, 1, steps_per_epoch=2, sampling=EveryOther, batch_size_of_compile=16)
        theirs = fitted(keras.optimizers.SGD(0.1), 0)
        for half in (0, 1):
            theirs.train_on_batch(X[half::2], Y[half::2])
        for one, other in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


if __name__ == "__main__":
    absltest.main()
