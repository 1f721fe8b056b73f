"""Neighboring data sets through `fit`: however a model, a loss and a pipeline are combined, one example's clip holds.

Combinations are drawn from a fixed seed. Of each the clipped sum of one step is read off the weights, for a batch and
for its neighbors: one example replaced by an extreme one, and one removed.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.training import distribution

L = keras.layers
BATCH_SIZE, LENGTH, FEATURES, CLASSES, CLIP = 6, 5, 3, 4, 0.1
# So large a step that the weights' own rounding is nothing beside it.
LEARNING_RATE = 1e4 * BATCH_SIZE
ROUNDING = 1e-5


def setUpModule():
    distribution.use_logical_devices(2)


def of_vectors(length):
    inputs = keras.Input((FEATURES,))
    return inputs, L.Dense(CLASSES)(L.Dense(5, activation="tanh")(inputs))


def of_sequences(length):
    inputs = keras.Input((length, FEATURES))
    return inputs, L.Dense(CLASSES)(L.LayerNormalization()(L.Dense(5, activation="relu")(inputs)))


def of_convolutions(length):
    inputs = keras.Input((length, FEATURES))
    return inputs, L.Dense(CLASSES)(L.Conv1D(5, 3, padding="same", activation="relu")(inputs))


def of_words(length):
    inputs = keras.Input((length,), dtype="int32")
    return inputs, L.Dense(CLASSES)(L.Embedding(9, 5)(inputs))


def of_recurrent_words(length):
    inputs = keras.Input((length,), dtype="int32")
    return inputs, L.Dense(CLASSES)(L.SimpleRNN(3, return_sequences=True)(L.Embedding(9, 4)(inputs)))


MODELS = (of_vectors, of_sequences, of_convolutions, of_words, of_recurrent_words)


def per_position(y, predictions):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int32), predictions)


def over_positions(values):
    return tf.reshape(values, [tf.shape(values)[0], -1])


def summed(y, predictions):
    return tf.reduce_sum(over_positions(per_position(y, predictions)), axis=1)


def of_known_classes(y, predictions):
    known = tf.cast(y > 0, predictions.dtype)
    losses, known = over_positions(per_position(y, predictions) * known), over_positions(known)
    return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=1), tf.reduce_sum(known, axis=1))


def class_weighted(y, predictions):
    weights = tf.gather(tf.constant([0.1, 1.0, 5.0, 20.0]), tf.cast(y, tf.int32))
    return tf.reduce_sum(over_positions(weights * per_position(y, predictions)), axis=1)


APART = (
    lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    lambda: summed,
    lambda: of_known_classes,
    lambda: class_weighted,
)


def scalar(y, predictions):
    return tf.reduce_mean(per_position(y, predictions))


def by_the_batchs_classes(y, predictions):
    known = tf.cast(y > 0, predictions.dtype)
    return tf.reduce_sum(over_positions(per_position(y, predictions) * known), axis=1) / tf.reduce_sum(known)


def centered(y, predictions):
    means = tf.reduce_mean(tf.reshape(predictions, [tf.shape(predictions)[0], -1, CLASSES]), axis=1)
    return tf.reduce_sum(tf.square(means - tf.reduce_mean(means, axis=0)), axis=1)


def balanced(y, predictions):
    counts = tf.math.bincount(tf.cast(tf.reshape(y, [-1]), tf.int32), minlength=CLASSES, dtype=predictions.dtype)
    weights = tf.gather(1.0 / (1.0 + counts), tf.cast(y, tf.int32))
    return tf.reduce_sum(over_positions(weights * per_position(y, predictions)), axis=1)


def of_like_pairs(y, predictions):
    labels = over_positions(tf.cast(y, predictions.dtype))
    means = tf.reduce_mean(tf.reshape(predictions, [tf.shape(predictions)[0], -1, CLASSES]), axis=1)
    alike = tf.cast(tf.reduce_all(labels[:, None] == labels[None], axis=-1), predictions.dtype)
    distances = tf.reduce_sum(tf.square(means[:, None] - means[None]), axis=-1)
    return tf.reduce_sum(alike * distances, axis=1)


def divided_by_the_batch(y, predictions):
    return summed(y, predictions) / tf.cast(tf.shape(predictions)[0], predictions.dtype)


MIXING = (scalar, by_the_batchs_classes, centered, balanced, of_like_pairs, divided_by_the_batch)


def records(rng, model):
    """A batch, and an example that is as unlike its examples as can be."""
    length = (LENGTH,) if model is not of_vectors else ()
    y = rng.integers(0, CLASSES, (BATCH_SIZE, *length))
    if model in (of_words, of_recurrent_words):
        return (rng.integers(0, 9, (BATCH_SIZE, *length)).astype(np.int32), y), (
            np.full(length, 8, np.int32),
            3 + 0 * y[0],
        )
    x = rng.normal(size=(BATCH_SIZE, *length, FEATURES)).astype(np.float32)
    return (x, y), (np.full(x.shape[1:], rng.choice([-100.0, 0.0, 1e4]), np.float32), 0 * y[0] + rng.integers(CLASSES))


def from_arrays(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)


def of_unknown_number(x, y):
    return from_arrays(x, y).filter(lambda x, y: True)


def of_unknown_sizes(x, y):
    """As padded batches are: the trace knows the number of axes, and no size but that of the features."""

    def forget(x, y, size):
        return tf.reshape(x, [size, *x.shape[1:]]), tf.reshape(y, [size])

    def forget_vectors(x, y, size):
        return tf.reshape(x, [size]), y

    size = x.shape[1]
    return (
        tf.data.Dataset.from_tensor_slices((x, y, np.full(len(x), size)))
        .map(forget if y.ndim > 1 else forget_vectors)
        .padded_batch(BATCH_SIZE)
    )


PIPELINES = (from_arrays, of_unknown_number, of_unknown_sizes)


class Setup:
    """A compiled model whose clipped sums are read off its weights."""

    def __init__(self, model, loss, strategy, *, unknown, **arguments):
        self.strategy = distribution.make_strategy(strategy)
        with self.strategy.scope():
            keras.utils.set_random_seed(1)
            self.model = noisy_sgd.PrivateModel(*model(None if unknown else LENGTH))
            self.model.compile(noisy_sgd.DPSGD(LEARNING_RATE, CLIP, 0.0, BATCH_SIZE), loss, **arguments)
        self.initial = self.model.get_weights()

    def clipped_sum(self, data):
        self.model.set_weights(self.initial)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your input ran out of data")
            self.model.fit(data, shuffle=False, verbose=0)
        pairs = zip(self.initial, self.model.get_weights(), strict=True)
        return np.concatenate([(a.astype(np.float64) - b).ravel() for a, b in pairs]) * BATCH_SIZE / LEARNING_RATE


def drawn(count, losses, seed):
    """Combinations in which every part appears."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        yield {
            "number": index,
            "model": MODELS[index % len(MODELS)],
            "loss": losses[index % len(losses)],
            "pipeline": PIPELINES[rng.integers(len(PIPELINES))],
            "strategy": ("default", "mirrored")[rng.integers(2)],
            "microbatch_size": (None, 2)[rng.integers(2)],
            "engine": ("auto", "auto", "vectorized")[rng.integers(3)],
        }


class SensitivityTest(parameterized.TestCase):
    @parameterized.parameters(*drawn(24, APART, 1))
    def test_no_neighbor_moves_the_sum_beyond_the_bound(self, number, model, loss, pipeline, strategy, **arguments):
        setup = Setup(model, loss(), strategy, unknown=pipeline is of_unknown_sizes, **arguments)
        (x, y), extreme = records(np.random.default_rng(number), model)
        whole = setup.clipped_sum(pipeline(x, y))
        self.assertGreater(np.linalg.norm(whole), 0.5 * CLIP)
        index = number % BATCH_SIZE
        replaced = x.copy(), y.copy()
        for part, value in zip(replaced, extreme, strict=True):
            part[index] = value
        moved = np.linalg.norm(setup.clipped_sum(pipeline(*replaced)) - whole)
        self.assertLessEqual(moved, 2 * CLIP * (1 + ROUNDING))
        self.assertGreater(moved, 0.01 * CLIP)
        removed = setup.clipped_sum(pipeline(np.delete(x, index, axis=0), np.delete(y, index, axis=0)))
        self.assertLessEqual(np.linalg.norm(removed - whole), CLIP * (1 + ROUNDING))

    @parameterized.parameters(*drawn(18, MIXING, 2))
    def test_what_mixes_examples_is_refused(self, number, model, loss, pipeline, strategy, **arguments):
        setup = Setup(model, loss, strategy, unknown=pipeline is of_unknown_sizes, **arguments)
        (x, y), _ = records(np.random.default_rng(number), model)
        with self.assertRaisesRegex(ValueError, "`loss` must (treat every example alone|give one value)"):
            setup.clipped_sum(pipeline(x, y))


if __name__ == "__main__":
    absltest.main()
