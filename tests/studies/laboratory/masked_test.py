import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import sampling
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies.laboratory import images, masked, networks, training
from tests import oracles

DATA = images.load("digits", 0, num_train_examples=60)
X, Y = DATA.train.images, DATA.train.labels


def pruned_network(fraction, seed=3):
    model = masked.builder(DATA, width=12)(seed)
    masked.pruned(model, masked.kernels(model), fraction)
    return model


def trainer(network):
    optimizer = sgd.DPSGD(1.0, 0.7, 1.5, 20, seed=0)
    return training.Trainer(network, optimizer, batch_size=20, sampled=sampling.Poisson)


def train(found, weights):
    found.start(X, Y, seed=5, learning_rate=0.5, weights=weights)
    found.advance(8)
    return found.weights


class MaskedTest(parameterized.TestCase):
    @parameterized.parameters(0.0, 0.5, 0.9, 0.99)
    def test_a_mask_keeps_the_largest_weights(self, fraction):
        kernel = np.random.default_rng(0).normal(size=(40, 25)).astype(np.float32)
        kept = masked.mask(kernel, fraction)
        self.assertEqual(np.sum(kept == 0), round(1000 * fraction))
        self.assertEqual(set(kept.ravel()) - {0.0, 1.0}, set())
        self.assertGreaterEqual(np.abs(kernel)[kept == 1].min(), np.abs(kernel)[kept == 0].max(initial=0.0))

    def test_weights_that_are_equal_are_pruned_in_the_stated_number(self):
        self.assertEqual(np.sum(masked.mask(np.ones((5, 4), np.float32), 0.75)), 5)

    @parameterized.parameters("book_keeping", "vectorized")
    def test_norms_and_sums_are_those_of_a_loop_over_masked_gradients(self, engine):
        model = pruned_network(0.9)
        # The unmasked gradient of a kernel that has the pruned values, masked afterwards.
        plain = networks.builder("mlp", DATA, width=12)(0)
        for layer, kernel in zip(
            (plain.get_layer("hidden1"), plain.get_layer("logits")), masked.kernels(model), strict=True
        ):
            layer.kernel.assign(kernel)
        kept = [np.ones(weight.shape) for weight in plain.trainable_weights]
        kept[0] = model.get_layer("hidden1").kept.numpy()
        each = [
            [part * own for part, own in zip(gradient, kept, strict=True)]
            for gradient in oracles.gradients(plain, oracles.cross_entropy, X, Y)
        ]
        norms = np.array([oracles.length(gradient) for gradient in each])
        bound = float(np.median(norms))
        sums = [sum(parts) for parts in zip(*(oracles.flat(bound)(gradient) for gradient in each), strict=True)]

        found = noisy_sgd.clipped_gradient_sum(
            model, oracles.cross_entropy, X, tf.constant(Y), l2_norm_clip=bound, engine=engine
        )
        np.testing.assert_allclose(found.norms, norms, rtol=1e-4)
        self.assertEqual(found.l2_sensitivity, bound)
        for value, expected in zip(found.values, sums, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4 * bound)
        self.assertLess(
            np.mean(norms),
            0.9 * np.mean([oracles.length(g) for g in oracles.gradients(plain, oracles.cross_entropy, X, Y)]),
        )

    def test_pruned_weights_stay_0_and_the_others_train(self):
        model = pruned_network(0.5)
        found = trainer(masked.builder(DATA, width=12))
        weights = train(found, [variable.numpy() for variable in model.variables])
        kernel, kept = found.model.get_layer("hidden1").kernel.numpy(), model.get_layer("hidden1").kept.numpy()
        np.testing.assert_array_equal(kernel[kept == 0], 0.0)
        self.assertTrue(np.all(kernel[kept == 1] != 0.0))
        self.assertEqual(np.sum(kept == 0), kept.size / 2)
        # The mask is a variable that training leaves alone.
        self.assertLen(weights, 5)
        np.testing.assert_array_equal(found.model.get_layer("hidden1").kept.numpy(), kept)

    def test_a_mask_of_ones_is_dp_sgd(self):
        network, plain = masked.builder(DATA, width=12), networks.builder("mlp", DATA, width=12)
        found = train(trainer(network), masked.pruned(network(3), masked.kernels(network(3)), 0.0))
        expected = train(trainer(plain), [variable.numpy() for variable in plain(3).variables])
        trained = [value for value, variable in zip(found, network(3).variables, strict=True) if variable.trainable]
        for value, other in zip(trained, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)

    def test_a_network_without_a_mask_cannot_be_pruned(self):
        model = networks.builder("mlp", DATA, width=12)(0)
        values = masked.pruned(model, [2 * kernel for kernel in masked.kernels(model)], 0.0)
        np.testing.assert_array_equal(values[0], model.get_layer("hidden1").kernel)
        for fraction in (0.5, 1.0, -0.1):
            with self.assertRaisesRegex(ValueError, "`fraction`.*Received"):
                masked.pruned(model, masked.kernels(model), fraction)


if __name__ == "__main__":
    absltest.main()
