import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.mechanisms import adaptive_clipping
from noisy_sgd.optimizers import sgd
from noisy_sgd.training import distribution, loop, private_model, training_metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 32).astype(np.int32)
LOSS = "sparse_categorical_crossentropy"


def setUpModule():
    distribution.use_logical_devices(2)


def microbatches(size, first=0):
    rows = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(32, bool))).repeat().skip(first)
    return rows.batch(size, drop_remainder=True)


def compiled(strategy, make_optimizer=lambda: sgd.DPSGD(0.2, 0.3, 0.5, 8, seed=3, momentum=0.9)):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(5, activation="tanh")(inputs)
        model = private_model.PrivateModel(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
        model.compile(make_optimizer(), LOSS, batch_size=8)
        return model, training_metrics.classification()


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs)


def weights_after(num_steps=8, *, strategy="default", microbatch_size=4, make_optimizer=None, **arguments):
    strategy = distribution.make_strategy(strategy)
    model, metrics = compiled(strategy, *([make_optimizer] if make_optimizer else []))
    rounds = 8 // microbatch_size // strategy.num_replicas_in_sync
    loop.train(
        model, microbatches(microbatch_size), lambda step: rounds, strategy=strategy, num_steps=num_steps,
        metrics=metrics, **arguments,
    )  # fmt: skip
    return model.get_weights()


def assert_close(first, second, atol):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


class LoopTest(parameterized.TestCase):
    def test_streaming_is_fit(self):
        model, _ = compiled(distribution.make_strategy("default"))
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        assert_close(weights_after(), model.get_weights(), 1e-6)

    @parameterized.parameters(("default", 8), ("default", 2), ("mirrored", 4), ("mirrored", 2))
    def test_replicas_and_microbatches_change_nothing(self, strategy, microbatch_size):
        one_step = weights_after(1, strategy=strategy, microbatch_size=microbatch_size)
        assert_close(one_step, weights_after(1, microbatch_size=8), 1e-6)

    @parameterized.parameters(
        {"steps_per_call": 3}, {"steps_per_epoch": 3}, {"norms_every": 3, "steps_per_call": 4, "steps_per_epoch": 5}
    )
    def test_how_steps_are_grouped_changes_nothing(self, **arguments):
        assert_close(weights_after(**arguments), weights_after(), 1e-6)

    def test_a_learned_bound_streams(self):
        def make():
            query = adaptive_clipping.AdaptiveClipping(count_stddev=1.0)
            return sgd.DPSGD(0.2, 0.3, 0.5, 8, seed=3, adaptive_clipping=query)

        model, _ = compiled(distribution.make_strategy("default"), make)
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        self.assertNotAlmostEqual(float(model.optimizer.current_l2_norm_clip), 0.3, places=2)
        for strategy in ("default", "mirrored"):
            streamed = weights_after(strategy=strategy, make_optimizer=make)
            assert_close(streamed, model.get_weights(), 1e-5)

    def test_continuing_is_not_stopping(self):
        strategy = distribution.make_strategy("default")
        model, metrics = compiled(strategy)
        common = dict(strategy=strategy, metrics=metrics)
        self.assertEqual(loop.train(model, microbatches(4), lambda step: 2, num_steps=3, **common), 3)
        loop.train(model, microbatches(4, first=3 * 8), lambda step: 2, num_steps=8, first_step=3, **common)
        assert_close(model.get_weights(), weights_after(), 0.0)

    def test_callbacks_see_steps_epochs_and_metrics(self):
        strategy = distribution.make_strategy("default")
        model, metrics = compiled(strategy, lambda: sgd.NoisySGD(0.2, 0.25, seed=1))
        recorder = Recorder()
        loop.train(
            model, microbatches(4), lambda step: 2, strategy=strategy, num_steps=5, metrics=metrics, steps_per_epoch=2,
            norms_every=2, evaluate=loop.evaluation(model, microbatches(32).take(1)), callbacks=[recorder],
        )  # fmt: skip
        self.assertEqual(recorder.batches, [0, 1, 2, 3, 4])
        self.assertLen(recorder.epochs, 3)
        loss = keras.losses.SparseCategoricalCrossentropy()(Y, model(X))
        np.testing.assert_allclose(recorder.epochs[-1]["val_loss"], loss, rtol=1e-5)
        accuracy = np.mean(np.argmax(model(X), axis=1) == Y)
        np.testing.assert_allclose(recorder.epochs[-1]["val_accuracy"], accuracy, rtol=1e-6)
        size = sum(weight.size for weight in model.get_weights())
        for logs in recorder.epochs:
            # 53 normals: six standard deviations of their chi-squared.
            expected, spread = size * 0.25**2, 0.25**2 * np.sqrt(2 * size)
            self.assertBetween(logs["squared_noise_norm"], expected - 4 * spread, expected + 6 * spread)
            self.assertGreater(logs["squared_gradient_norm"], 0)

    def test_noise_of_sgd_is_zero(self):
        strategy = distribution.make_strategy("default")
        model, metrics = compiled(strategy, lambda: keras.optimizers.SGD(0.2))
        recorder = Recorder()
        loop.train(
            model, microbatches(8), lambda step: 1, strategy=strategy, num_steps=2, metrics=metrics, norms_every=1,
            callbacks=[recorder],
        )  # fmt: skip
        self.assertEqual(recorder.epochs[0]["squared_noise_norm"], 0.0)

    def test_a_callback_can_stop(self):
        class Stop(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.stop_training = batch == 2

        strategy = distribution.make_strategy("default")
        model, metrics = compiled(strategy)
        done = loop.train(
            model, microbatches(8), lambda step: 1, strategy=strategy, num_steps=8, metrics=metrics, callbacks=[Stop()]
        )
        self.assertEqual(done, 3)
        self.assertEqual(int(model.optimizer.iterations), 3)

    def test_padding_is_neither_trained_on_nor_measured(self):
        strategy = distribution.make_strategy("default")
        spoiled = X.copy()
        spoiled[5:8] = np.nan
        mask = np.arange(8) < 5
        weights, losses = [], []
        for images, labels, present in ((spoiled[:8], Y[:8], mask), (X[:5], Y[:5], np.ones(5, bool))):
            model, metrics = compiled(strategy)
            dataset = tf.data.Dataset.from_tensors((images, labels, present))
            loop.train(model, dataset, lambda step: 1, strategy=strategy, num_steps=1, metrics=metrics)
            weights.append(model.get_weights())
            losses.append(float(metrics["loss"].result()))
        assert_close(*weights, 1e-6)
        self.assertAlmostEqual(*losses, places=5)


if __name__ == "__main__":
    absltest.main()
