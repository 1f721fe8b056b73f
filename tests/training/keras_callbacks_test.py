"""Keras' own callbacks do their work in `PrivateModel.fit` and in the loop of the binaries."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.training import distribution, loop

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 32).astype(np.int32)
EPOCHS, STEPS = 4, 4


def setUpModule():
    distribution.use_logical_devices(2)


def trained(way, *callbacks):
    """A model after at most four epochs of four DP-SGD steps, by `fit` or by the loop."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(noisy_sgd.DPSGD(0.2, 1.0, 0.5, 8), loss, metrics=["accuracy"])
    if way == "fit":
        model.fit(X, Y, epochs=EPOCHS, verbose=0, validation_data=(X, Y), callbacks=list(callbacks))
        return model
    rows = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(32, bool))).repeat()
    loop.train(
        model, rows.batch(8), lambda step: 1, strategy=distribution.make_strategy("default"),
        num_steps=EPOCHS * STEPS, steps_per_epoch=STEPS, metrics={}, callbacks=list(callbacks),
        evaluate=loop.evaluation(model, rows.batch(32).take(1)),
    )  # fmt: skip
    return model


def scalars(directory):
    """{tag: [steps]} of the TensorBoard events under a directory."""
    found = {}
    for path in sorted(pathlib.Path(directory).rglob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


class KerasCallbacksTest(parameterized.TestCase):
    @parameterized.parameters("fit", "loop")
    def test_tensorboard_and_csv_logger_write_epsilon_and_validation(self, way):
        directory = pathlib.Path(self.create_tempdir().full_path)
        model = trained(
            way,
            keras.callbacks.TensorBoard(directory / "tensorboard", write_graph=False),
            keras.callbacks.CSVLogger(directory / "log.csv"),
            noisy_sgd.PrivacyBudget(1000.0, delta=1e-3, num_examples=32, accountant="rdp", sampling="shuffled"),
        )
        tags = scalars(directory / "tensorboard")
        header, *rows = [line.split(",") for line in (directory / "log.csv").read_text().splitlines()]
        self.assertLen(rows, EPOCHS)
        last = dict(zip(header, map(float, rows[-1]), strict=True))
        logits = model.predict(X, verbose=0)
        self.assertAlmostEqual(last["val_accuracy"], np.mean(logits.argmax(axis=1) == Y), places=5)
        expected = noisy_sgd.privacy.epsilon(0.5, 8, 32, EPOCHS * STEPS, 1e-3, accountant="rdp", sampling="shuffled")
        self.assertAlmostEqual(last["epsilon"], expected, places=5)
        self.assertEqual(tags["epoch_epsilon"], list(range(EPOCHS)))
        # `fit` has the training loss beside the validation loss.
        self.assertLen(tags["epoch_loss"], {"fit": 2, "loop": 1}[way] * EPOCHS)

    @parameterized.parameters("fit", "loop")
    def test_model_checkpoint_keeps_the_best(self, way):
        path = self.create_tempdir().full_path + "/best.keras"
        seen = []
        trained(
            way,
            keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])),
        )
        self.assertAlmostEqual(keras.models.load_model(path).evaluate(X, Y, verbose=0)[0], min(seen), places=5)

    @parameterized.parameters("fit", "loop")
    def test_early_stopping_stops_and_restores(self, way):
        seen = []
        model = trained(
            way,
            # No validation loss improves by so much: the second epoch is the last.
            keras.callbacks.EarlyStopping("val_loss", min_delta=100.0, patience=1, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])),
        )
        self.assertLen(seen, 2)
        self.assertEqual(int(model.optimizer.iterations), 2 * STEPS)
        self.assertAlmostEqual(model.evaluate(X, Y, verbose=0)[0], seen[0], places=5)

    @parameterized.parameters("fit", "loop")
    def test_private_facts_are_refused(self, way):
        with self.assertRaisesRegex(ValueError, "`callbacks` must not act on private facts.*Received: monitor='loss'"):
            trained(way, keras.callbacks.EarlyStopping("loss"))


if __name__ == "__main__":
    absltest.main()
