"""Under two replicas every example enters the sum and the metrics once, whichever of Keras' methods trains or tests."""

from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.training import distribution

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 9)
WEIGHTS = RNG.uniform(0.5, 2.0, 9).astype(np.float32)
CLASS_WEIGHTS = {0: 2.0, 1: 0.5, 2: 1.5}
CLIP, BATCH = 0.9, 9
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def setUpModule():
    distribution.use_logical_devices(2)


def network(model_class=noisy_sgd.PrivateModel):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    return model_class(inputs, keras.layers.Dense(3)(inputs))


def mirrored(**arguments):
    with distribution.make_strategy("mirrored").scope():
        model = network()
        metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="mean")]
        model.compile(noisy_sgd.DPSGD(1.0, CLIP, 0.0, BATCH), LOSS, metrics=metrics, **arguments)
    return model


def clipped_sum(count, weights=None):
    """By a loop over examples; some of them are clipped."""
    model = network()
    total, clipped = [np.zeros(w.shape) for w in model.trainable_weights], 0
    for index in range(count):
        rows = slice(index, index + 1)
        with tf.GradientTape() as tape:
            loss = (1.0 if weights is None else weights[index]) * LOSS(Y[rows], model(X[rows]))
        gradient = tape.gradient(loss, [w.value for w in model.trainable_weights])
        norm = np.sqrt(sum(np.square(g).sum() for g in gradient))
        clipped += norm > CLIP
        total = [t + g.numpy() * min(1.0, CLIP / norm) for t, g in zip(total, gradient, strict=True)]
    return total, clipped


class ReplicaPartsTest(parameterized.TestCase):
    def assert_stepped(self, model, count, weights=None):
        expected, clipped = clipped_sum(count, weights)
        if count == 9:
            self.assertBetween(clipped, 1, 8)
        for before, after, value in zip(network().get_weights(), model.get_weights(), expected, strict=True):
            np.testing.assert_allclose((before - after) * BATCH, value, rtol=0, atol=5e-6)

    @parameterized.parameters(9, 2, 1)
    def test_train_on_batch_takes_each_example_once(self, count):
        plain = network(keras.Model)
        plain.compile("sgd", LOSS, metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True)])
        model = mirrored()
        found = model.train_on_batch(X[:count], Y[:count])
        self.assert_stepped(model, count)
        np.testing.assert_allclose(found, plain.test_on_batch(X[:count], Y[:count]), rtol=1e-5)

    def test_weights_go_with_their_examples(self):
        model = mirrored(microbatch_size=2)
        model.train_on_batch(tf.constant(X), tf.constant(Y), sample_weight=WEIGHTS)
        self.assert_stepped(model, 9, WEIGHTS)
        model = mirrored()
        model.train_on_batch(X, Y, class_weight=CLASS_WEIGHTS)
        self.assert_stepped(model, 9, [CLASS_WEIGHTS[label] for label in Y])

    def test_one_model_takes_batches_of_any_size(self):
        model, steps = mirrored(), (9, 4, 1, 9)
        for count in steps:
            model.train_on_batch(X[:count], Y[:count])
        reference = network()
        reference.compile(noisy_sgd.DPSGD(1.0, CLIP, 0.0, BATCH), LOSS)
        for count in steps:
            reference.train_on_batch(X[:count], Y[:count])
        for a, b in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)

    def test_a_split_batch_is_not_tuned(self):
        model = mirrored()
        strategy = model.distribute_strategy
        split = strategy.experimental_distribute_dataset
        with mock.patch.object(strategy, "experimental_distribute_dataset", side_effect=split) as call:
            model.train_on_batch(X[:1], Y[:1])
        (dataset,) = call.call_args.args
        self.assertIs(dataset.options().autotune.enabled, False)

    @parameterized.parameters(9, 1)
    def test_test_on_batch_counts_each_example_once(self, count):
        model = mirrored()
        found = model.test_on_batch(X[:count], Y[:count], return_dict=True)
        self.assertEqual(float(sum(metric.count for metric in model.metrics[1].metrics[:1])), count)
        expected = LOSS(Y[:count], network()(X[:count]))
        np.testing.assert_allclose([found["loss"], found["mean"]], [expected, expected], rtol=1e-5)

    @parameterized.parameters(9, 1)
    def test_fit_takes_a_first_batch_of_any_size(self, count):
        model = mirrored()
        model.fit(X[:count], Y[:count], shuffle=False, verbose=0)
        self.assert_stepped(model, count)

    def test_what_does_not_fit_together_is_refused(self):
        for model in (mirrored(), network()):
            if not model.compiled:
                model.compile(noisy_sgd.DPSGD(1.0, CLIP, 0.0, BATCH), LOSS)
            with self.assertRaisesRegex(ValueError, "the same number of examples. Received: x of shapes .9, 6"):
                model.train_on_batch(X, Y[:7])
            np.testing.assert_array_equal(model.get_weights()[0], network().get_weights()[0])


if __name__ == "__main__":
    absltest.main()
