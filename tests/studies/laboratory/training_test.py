import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import sampling
from noisy_sgd.models import feedforward
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies.laboratory import arms, settings, training
from noisy_sgd.training import private_model

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(40, 3, 3, 1)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 40).astype(np.int32)


def network(seed):
    options = {"input_shape": (3, 3, 1), "pixel_range": None, "seed": seed}
    return feedforward.mlp(4, hidden=(5,), model_class=private_model.PrivateModel, **options)


def trainer(arm, batch_size=8, **options):
    optimizer = arms.optimizer(arm, batch_size=batch_size, noise_std=0.05, l2_norm_clip=0.7)
    return training.Trainer(network, optimizer, batch_size=batch_size, **options)


class TrainerTest(parameterized.TestCase):
    def test_plain_training_is_keras(self):
        found = trainer(arms.PLAIN)
        found.start(IMAGES, LABELS, seed=3, learning_rate=0.2)
        found.advance(7)
        model = feedforward.mlp(4, hidden=(5,), input_shape=(3, 3, 1), pixel_range=None, seed=3)
        model.compile(keras.optimizers.SGD(0.2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        scheme = sampling.Shuffled(40, 8, 3)
        for step in range(7):
            model.train_on_batch(IMAGES[scheme.indices(step)], LABELS[scheme.indices(step)])
        for value, expected in zip(found.weights, model.get_weights(), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    @parameterized.parameters(*settings.ARMS)
    def test_a_run_does_not_depend_on_the_runs_before_it(self, arm):
        found, again = trainer(arm, ema_decay=0.9), trainer(arm, ema_decay=0.9)
        found.start(IMAGES[::-1], LABELS, seed=1, learning_rate=0.5)
        found.advance(3)
        for one in (found, again):
            one.start(IMAGES, LABELS, seed=2, learning_rate=0.1)
            one.advance(5)
        for value, expected in zip(found.weights, again.weights, strict=True):
            np.testing.assert_array_equal(value, expected)
        with found.average.applied(found.model), again.average.applied(again.model):
            np.testing.assert_array_equal(found.weights[0], again.weights[0])

    def test_parts_of_a_run_are_the_whole_run(self):
        whole, parts, other = trainer(arms.NOISE_CLIP), trainer(arms.NOISE_CLIP), trainer(arms.NOISE_CLIP)
        whole.start(IMAGES, LABELS, seed=2, learning_rate=0.1)
        whole.advance(9)
        parts.start(IMAGES, LABELS, seed=2, learning_rate=0.1)
        parts.advance(4)
        other.start(IMAGES, LABELS, seed=2, learning_rate=0.1, weights=parts.weights, step=parts.step)
        other.advance(5)
        self.assertEqual(other.step, 9)
        for value, expected in zip(other.weights, whole.weights, strict=True):
            np.testing.assert_array_equal(value, expected)

    def test_the_average_follows_every_step(self):
        found = trainer(arms.PLAIN, ema_decay=0.6)
        found.start(IMAGES, LABELS, seed=4, learning_rate=0.3)
        expected = [value.astype(np.float64) for value in found.weights]
        for step in range(8):
            found.advance(1)
            decay = min(0.6, (1 + step) / (10 + step))
            pairs = zip(expected, found.weights, strict=True)
            expected = [decay * average + (1 - decay) * value for average, value in pairs]
        with found.average.applied(found.model):
            for value, reference in zip(found.weights, expected, strict=True):
                np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-6)

    def test_poisson_batches_have_any_size(self):
        found = trainer(arms.PLAIN, sampled=sampling.Poisson)
        found.start(IMAGES, LABELS, seed=5, learning_rate=0.2)
        found.advance(6)
        model = network(5)
        model.compile(sgd.NoisySGD(0.2, 0.0, seed=0), "sparse_categorical_crossentropy")
        model.compile(
            keras.optimizers.SGD(0.2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), batch_size=8
        )
        scheme = sampling.Poisson(40, 8, 5)
        self.assertGreater(len({len(scheme.indices(step)) for step in range(6)}), 1)
        for step in range(6):
            model.accumulate(IMAGES[scheme.indices(step)], LABELS[scheme.indices(step)])
            model.finish()
        for value, expected in zip(found.weights, model.get_weights(), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    def test_evaluation_is_keras(self):
        found = trainer(arms.PLAIN)
        found.start(IMAGES, LABELS, seed=3, learning_rate=0.2)
        model = found.model
        predictions = model.predict(IMAGES, verbose=0)
        accuracy = np.mean(np.argmax(predictions, 1) == LABELS)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, predictions)
        evaluated = found.evaluate(IMAGES, LABELS)
        self.assertAlmostEqual(evaluated.accuracy, accuracy, places=6)
        self.assertAlmostEqual(evaluated.loss, float(loss), places=5)

    @parameterized.parameters((arms.PLAIN, False, False), (arms.NOISE, True, False), (arms.CLIP, False, True))
    def test_the_arms_differ_in_what_they_say(self, arm, noise, clip):
        optimizer = arms.optimizer(arm, batch_size=8, noise_std=0.05, l2_norm_clip=0.7)
        self.assertEqual(float(np.asarray(optimizer.noise_std)), 0.05 if noise else 0.0)
        self.assertEqual(isinstance(optimizer, sgd.DPSGD), clip)

    def test_both_arms_with_noise_have_the_same_noise(self):
        optimizer = arms.optimizer(arms.NOISE_CLIP, batch_size=8, noise_std=0.05, l2_norm_clip=0.7)
        self.assertAlmostEqual(optimizer.noise_std, 0.05)


if __name__ == "__main__":
    absltest.main()
