"""What every Keras shell of an optimizer must keep, written once: its config, two replicas, microbatches, resumption.

class ShellTest(shells.Shell, parameterized.TestCase):
    def make(self, **arguments): return lars.DPLARS(0.5, 0.5, 1.0, 24, seed=4, **arguments)
"""

import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

import noisy_sgd
from noisy_sgd.gradients import clipping
from noisy_sgd.training import distribution

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5)).astype(np.float32), RNG.integers(0, 3, 24)
SUMS = [np.array([[3.0, -2.0], [0.5, 1e-3]], np.float32), np.array([-1.0, 4.0], np.float32)]


def clipped(values, bound=1.0, **more):
    """A `ClippedSum` of these values."""
    values = [tf.convert_to_tensor(value, tf.float32) for value in values]
    return clipping.ClippedSum(values=values, norms=tf.zeros([0]), l2_sensitivity=bound, **more)


def new_model(optimizer, strategy="default", model_class=noisy_sgd.PrivateModel, **arguments):
    """A small network, compiled with `optimizer()` under a strategy, with the same initial weights in every call."""
    with distribution.make_strategy(strategy).scope():
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(8, activation="tanh")(inputs)
        model = model_class(inputs, keras.layers.Dense(3)(hidden))
        model.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments)
    return model


def trained(optimizer, *args, epochs=4, **arguments):
    """The model of `new_model` after one step per epoch on all of X."""
    model = new_model(optimizer, *args, **arguments)
    model.fit(X, Y, batch_size=24, epochs=epochs, shuffle=False, verbose=0)
    return model


def difference(one, other):
    """The largest difference between the weights of two models, or of two lists of weights."""
    pairs = zip(*(getattr(each, "weights", each) for each in (one, other)), strict=True)
    return max(np.abs(a.numpy() - b.numpy()).max() for a, b in pairs)


def stepped(optimizer, steps=4, **more):
    """Two weights after some steps of an optimizer, each with other sums: clipped ones for a private optimizer."""
    weights = [keras.Variable(value) for value in SUMS]
    for step in range(1, steps + 1):
        sums = [tf.constant(step * value) for value in SUMS]
        private = isinstance(optimizer, noisy_sgd.PrivateUpdate)
        optimizer.apply(clipped(sums, optimizer.current_l2_norm_clip, **more) if private else sums, weights)
    return weights


class Shell:
    """Tests of an optimizer that trains with batches of 24; `make(**arguments)` makes one with a fixed seed."""

    def test_config_round_trip(self):
        optimizer = self.make()
        rebuilt = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
        self.assertIs(type(rebuilt), type(optimizer))
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())

    def test_replicas_microbatches_and_interruptions_change_nothing(self):
        unbroken, half = trained(self.make, epochs=3), trained(self.make, epochs=2)
        with self.subTest("two replicas, microbatches"):
            self.assertLess(difference(unbroken, trained(self.make, "mirrored", epochs=3, microbatch_size=7)), 1e-5)
        with self.subTest("resumed"):
            resumed = self.restored(half)
            resumed.fit(X, Y, batch_size=24, shuffle=False, verbose=0)
            self.assertEqual(difference(unbroken, resumed), 0.0)

    def restored(self, model):
        """A copy of the model from a file that holds all of its state."""
        path = os.path.join(tempfile.mkdtemp(), "model.keras")
        model.save(path)
        return keras.saving.load_model(path)

    def test_keyword_arguments_of_keras_that_break_the_noise_are_refused(self):
        with self.assertRaisesRegex(ValueError, "`clipnorm` is not supported"):
            self.make(clipnorm=1.0)
