"""Losses that mix examples, all refused, and losses that treat every example alone, none of them refused."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import losses

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.gradients.trials import loss_mixing
from noisy_sgd.optimizers import sgd
from noisy_sgd.training import per_example_loss, private_model

MIXES = "`loss` must treat every example alone"
NO_VALUES = "`loss` must give one value per example"
RNG = np.random.default_rng(0)


def squares(p):
    return tf.reduce_sum(tf.square(p), axis=-1)


def distances(p):
    return squares(p[:, None] - p[None])


def alike(y):
    """Pairs of one class, [B, B]."""
    return tf.equal(tf.reshape(y, [-1, 1]), tf.reshape(y, [1, -1]))


def others(p):
    return tf.cast(1.0 - tf.eye(tf.shape(p)[0]), tf.bool)


def cross_entropy(y, p):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int32), p)


def error(y, p):
    return tf.reduce_mean(tf.square(y - p), axis=-1)


def contrastive_of_views(y, p):
    """NT-Xent of pairs that are each other's views: neighbors in the batch."""
    p = tf.math.l2_normalize(p, axis=-1)
    similar = tf.matmul(p, p, transpose_b=True) / 0.1 - 1e9 * tf.eye(tf.shape(p)[0])
    count = tf.shape(p)[0]
    partner = tf.minimum(tf.range(count) + 1 - 2 * (tf.range(count) % 2), count - 1)
    return cross_entropy(partner, similar) + 0.0 * tf.cast(y, tf.float32)


def contrastive_of_classes(y, p):
    near = tf.where(alike(y), distances(p), tf.square(tf.nn.relu(1.0 - tf.sqrt(distances(p) + 1e-9))))
    return tf.reduce_mean(near, axis=1)


def batch_hard(y, p):
    far = tf.reduce_max(tf.where(alike(y), distances(p), 0.0), axis=1)
    near = tf.reduce_min(tf.where(alike(y), 1e9, distances(p)), axis=1)
    return tf.nn.relu(far - near + 0.2)


def semi_hard(y, p):
    far = tf.reduce_max(tf.where(alike(y), distances(p), 0.0), axis=1, keepdims=True)
    harder = ~alike(y) & (distances(p) > far)
    near = tf.reduce_min(tf.where(harder, distances(p), 1e9), axis=1)
    return tf.nn.relu(far[:, 0] - near + 0.2)


def multi_similarity(y, p):
    similar = tf.matmul(p, p, transpose_b=True)
    positive = tf.reduce_sum(tf.where(alike(y) & others(p), tf.exp(-2.0 * (similar - 0.5)), 0.0), axis=1)
    negative = tf.reduce_sum(tf.where(alike(y), 0.0, tf.exp(tf.minimum(10.0 * (similar - 0.5), 50.0))), axis=1)
    return tf.math.log1p(positive) / 2.0 + tf.math.log1p(negative) / 10.0


def n_pairs(y, p):
    targets = tf.cast(alike(y), tf.float32)
    return tf.nn.softmax_cross_entropy_with_logits(
        targets / tf.reduce_sum(targets, axis=1, keepdims=True), tf.matmul(p, p, transpose_b=True)
    )


def center(y, p):
    same = tf.cast(alike(y), tf.float32)
    return squares(p - tf.matmul(same, p) / tf.reduce_sum(same, axis=1, keepdims=True))


def neighbors(y, p):
    """Only of examples that are alike to rounding."""
    return tf.reduce_sum(tf.cast(distances(p) < 1e-6, tf.float32), axis=1) * cross_entropy(y, p)


def balanced(y, p):
    counts = tf.math.bincount(tf.cast(y, tf.int32), minlength=4, maxlength=4, dtype=tf.float32)
    return cross_entropy(y, p) / tf.gather(1.0 + counts, tf.cast(y, tf.int32))


@tf.custom_gradient
def with_gradients_of_one_norm(p):
    return tf.identity(p), lambda slope: slope / tf.norm(slope)


def listwise(y, p):
    return -tf.nn.log_softmax(p[:, 0], axis=0) * tf.cast(y, tf.float32)


def pairwise_ranks(y, p):
    better = tf.cast(tf.reshape(y, [-1, 1]) > tf.reshape(y, [1, -1]), tf.float32)
    return tf.reduce_sum(better * tf.nn.relu(1.0 - p[:, :1] + tf.transpose(p[:, :1])), axis=1)


def whitened(y, p):
    centered = p - tf.reduce_mean(p, axis=0)
    covariance = tf.matmul(centered, centered, transpose_a=True) / tf.cast(tf.shape(p)[0], tf.float32)
    return squares(tf.matmul(centered, tf.linalg.inv(covariance + 0.1 * tf.eye(4)))) + 0.0 * tf.cast(y, tf.float32)


def hardest_examples(y, p):
    """The worse half of the batch alone."""
    found = cross_entropy(y, p)
    return tf.where(found >= tf.sort(found)[tf.shape(found)[0] // 2], found, 0.0)


# Targets: labels [B], predictions [B, 4].
OF_LABELS = {
    "circle": losses.Circle(),
    "circle, soft": losses.Circle(gamma=1.0),
    "contrastive of views": contrastive_of_views,
    "contrastive of classes": contrastive_of_classes,
    "batch hard": batch_hard,
    "semi-hard": semi_hard,
    "multi-similarity": multi_similarity,
    "n-pairs": n_pairs,
    "center": center,
    "neighbors": neighbors,
    "balanced": balanced,
    "listwise": listwise,
    "pairwise ranks": pairwise_ranks,
    "whitened": whitened,
    "hardest examples": hardest_examples,
    "divided by the batch": lambda y, p: cross_entropy(y, p) / tf.cast(tf.shape(p)[0], tf.float32),
    "by place": lambda y, p: cross_entropy(y, p) * tf.cast(tf.range(tf.shape(p)[0]), tf.float32),
    "number of classes": lambda y, p: cross_entropy(y, p) * tf.cast(tf.size(tf.unique(y)[0]), tf.float32),
    "small in all": lambda y, p: 1e-6 * balanced(y, p),
    "a bounded part": lambda y, p: cross_entropy(y, p) + 1e-3 * tf.reduce_mean(tf.tanh(p)),
    "gradients of one norm": lambda y, p: cross_entropy(y, with_gradients_of_one_norm(p)),
    "a small part": lambda y, p: cross_entropy(y, p) + 1e-4 * tf.reduce_mean(tf.square(p)),
}
# Targets and predictions: floats [B, T].
OF_NUMBERS = {
    "centered": lambda y, p: error(y, p - tf.reduce_mean(p, axis=0)),
    "standardized": lambda y, p: error(y, (p - tf.reduce_mean(p, 0)) / (tf.math.reduce_std(p, axis=0) + 1e-3)),
    "standardized targets": lambda y, p: error(y / (tf.math.reduce_std(y, axis=0) + 1e-3), p),
    "correlation": lambda y, p: (
        -tf.reduce_mean(
            tf.math.l2_normalize(y - tf.reduce_mean(y, 0), 0) * tf.math.l2_normalize(p - tf.reduce_mean(p, 0), 0),
            axis=-1,
        )
    ),
    "dice over the batch": lambda y, p: 1 - tf.reduce_sum(y * p, -1) / (1.0 + tf.reduce_sum(tf.abs(y) + tf.abs(p))),
    "variance and covariance": lambda y, p: tf.reduce_mean(
        tf.nn.relu(1.0 - tf.math.reduce_std(p, axis=0)) + tf.square(y - p), axis=-1
    ),
    "missing targets": lambda y, p: (
        tf.reduce_sum(tf.where(tf.math.is_nan(y), 0.0, tf.square(tf.where(tf.math.is_nan(y), 0.0, y) - p)), -1)
        / (1.0 + tf.reduce_mean(tf.cast(~tf.math.is_nan(y), tf.float32)))
    ),
    "a number for missing targets": lambda y, p: (
        tf.reduce_sum(tf.where(y == -9999.0, 0.0, tf.square(y - p)), -1)
        / tf.reduce_mean(tf.cast(y != -9999.0, tf.float32))
    ),
    "positives of the batch": lambda y, p: (
        tf.reduce_sum(tf.nn.softplus(-y * p), -1) / (1.0 + tf.reduce_sum(tf.cast(y > 0.5, tf.float32)))
    ),
    "repelled when near": lambda y, p: tf.reduce_sum(tf.nn.relu(0.1 - distances(p)), axis=1) + error(y, y),
    "quantiles": lambda y, p: tf.reduce_mean(tf.square(tf.sort(p, axis=0) - tf.sort(y, axis=0)), -1),
    "hinge of Keras": losses.hinge,
    "of pixels if large": lambda y, p: error(tf.cond(tf.reduce_max(p) > 1.0, lambda: y / 255.0, lambda: y), p),
    "another example's": lambda y, p: error(y, tf.roll(p, 1, axis=0)),
    "all of one another": lambda y, p: error(y[:, None], p[None, :, :])[:, 0],
}


def of_tokens(weigh):
    """The sum over an example's tokens by the batch's number of tokens; `weigh` says which count."""

    def loss(y, p):
        kept = tf.cast(weigh(y), tf.float32)
        safe = tf.where(weigh(y), y, 0)
        return tf.reduce_sum(cross_entropy(safe, p) * kept, -1) / (1e-3 + tf.reduce_mean(tf.reduce_sum(kept, -1)))

    return loss


# Targets: tokens [B, T], predictions [B, T, 4].
OF_TOKENS = {f"tokens but {pad}": of_tokens(lambda y, pad=pad: tf.not_equal(y, pad)) for pad in (0, -1, -100, 255)}
SPECS = {
    "labels": (OF_LABELS, ([], "int32"), ([4], "float32")),
    "numbers": (OF_NUMBERS, ([6], "float32"), ([6], "float32")),
    "tokens": (OF_TOKENS, ([6], "int64"), ([6, 4], "float32")),
}
MIXING = {(kind, name): table[name] for kind, (table, _, _) in SPECS.items() for name in table}


def specs(kind, known=True):
    _, *made = SPECS[kind]
    return [
        tf.TensorSpec([None, *(size if known or size == 4 else None for size in shape)], dtype) for shape, dtype in made
    ]


def as_function(loss):
    return per_example_loss.from_keras(loss) if isinstance(loss, losses.Loss) else lambda y, p: loss(y[0], p)


def small_model(kind, model_class=keras.Model, known=True):
    keras.utils.set_random_seed(1)
    shape = {"labels": (4,), "numbers": (6,), "tokens": (6 if known else None, 4)}[kind]
    inputs = keras.Input(shape)
    return model_class(inputs, keras.layers.Dense(shape[-1])(inputs))


def batch(kind):
    x = {"labels": (8, 4), "numbers": (8, 6), "tokens": (8, 6, 4)}[kind]
    y = RNG.normal(size=(8, 6)).astype(np.float32) if kind == "numbers" else RNG.integers(0, 4, x[:-1])
    return RNG.normal(size=x).astype(np.float32), y


class MixingTest(parameterized.TestCase):
    @parameterized.parameters(*MIXING)
    def test_refused_whatever_is_known_of_the_sizes(self, kind, name):
        for known in (True, False):
            y, predictions = specs(kind, known)
            with self.assertRaisesRegex(ValueError, MIXES):
                loss_mixing.check(as_function(MIXING[kind, name]), (y,), predictions)

    @parameterized.parameters("auto", "vectorized")
    def test_refused_by_every_engine(self, engine):
        models = {kind: small_model(kind) for kind in SPECS}
        for (kind, name), loss in MIXING.items():
            x, y = batch(kind)
            function = as_function(loss)
            with self.subTest(name), self.assertRaisesRegex(ValueError, MIXES):
                clipped_sum.clipped_gradient_sum(
                    models[kind], lambda y, p, f=function: f((y,), p), x, y, l2_norm_clip=1.0, engine=engine
                )


def spec(shape, dtype="float32"):
    return tf.TensorSpec([None, *shape], dtype)


def of_masked_tokens(y, p):
    kept = tf.cast(y != 0, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(cross_entropy(y, p) * kept, -1), tf.reduce_sum(kept, -1))


def of_next_tokens(y, p):
    return tf.reduce_mean(cross_entropy(y[:, 1:], p[:, :-1]), axis=-1)


def of_ignored(y, p):
    kept = y != -100
    return tf.reduce_sum(tf.where(kept, cross_entropy(tf.where(kept, y, 0), p), 0.0), -1)


@tf.function
def own_function(y, p):
    return error(y, p)


def stable_by_the_whole_batch(y, p):
    """Shifts all logits by the largest of the batch, which cancels."""
    largest = tf.reduce_max(p)
    return tf.math.log(tf.reduce_sum(tf.exp(tf.maximum(p - largest, -60.0)), -1)) + largest - p[:, 0]


def of_rows(y, p):
    """A product over the batch of which the diagonal is kept."""
    return tf.linalg.diag_part(tf.matmul(y, p, transpose_b=True))


def focal(y, p):
    hit = tf.gather(tf.nn.softmax(p), y, batch_dims=1)
    return -tf.square(1.0 - hit) * tf.math.log(hit + 1e-7)


def ordinal(y, p):
    """Labels from 1 on."""
    tf.debugging.assert_positive(y)
    return cross_entropy(y - 1, p)


LABEL, WIDE_LABEL, FLOAT_LABEL = spec([], "int64"), spec([1], "int32"), spec([])
VECTOR, TOKENS, LOGITS, TOKEN_LOGITS = spec([5]), spec([6], "int64"), spec([5]), spec([6, 5])
IMAGE, MAP = spec([9, 7, 3]), spec([9, 7], "int32")
REGRESSIONS = (
    losses.MeanSquaredError(), losses.MeanAbsoluteError(), losses.MeanAbsolutePercentageError(), losses.Huber(0.3),
    losses.MeanSquaredLogarithmicError(), losses.LogCosh(), losses.Poisson(), losses.KLDivergence(), losses.Hinge(),
    losses.SquaredHinge(), losses.CategoricalHinge(), losses.CosineSimilarity(), losses.BinaryCrossentropy(),
    losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), losses.BinaryFocalCrossentropy(),
    losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True), losses.CategoricalCrossentropy(),
    losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), losses.CategoricalFocalCrossentropy(),
    losses.CategoricalFocalCrossentropy(from_logits=True), "mse", "mae", "kl_divergence", "crossentropy", "log_cosh",
)  # fmt: skip
OF_CLASSES = (
    losses.SparseCategoricalCrossentropy(), losses.SparseCategoricalCrossentropy(from_logits=True),
    losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
    losses.SparseCategoricalCrossentropy(ignore_class=0), "sparse_categorical_crossentropy", "crossentropy",
)  # fmt: skip
ACCEPTED = [
    *((loss, VECTOR, LOGITS) for loss in REGRESSIONS),
    *((loss, spec([6, 5]), TOKEN_LOGITS) for loss in REGRESSIONS[4::6]),
    *((loss, spec([5], "int32"), LOGITS) for loss in REGRESSIONS[1::6]),
    *((losses.Hinge(), y, spec([1])) for y in (spec([1]), FLOAT_LABEL, LABEL)),
    *((OF_CLASSES[1], y, LOGITS) for y in (LABEL, WIDE_LABEL, FLOAT_LABEL, spec([], "uint8"))),
    *((OF_CLASSES[2], y, TOKEN_LOGITS) for y in (TOKENS, spec([6, 1], "int32"), spec([6]))),
    *((loss, LABEL, LOGITS) for loss in OF_CLASSES),
    (losses.BinaryCrossentropy(), IMAGE, IMAGE),
    (OF_CLASSES[2], MAP, spec([9, 7, 4])),
    (losses.Dice(axis=(1, 2, 3)), IMAGE, IMAGE),
    (losses.Tversky(axis=(1, 2, 3), alpha=0.3), IMAGE, IMAGE),
    (losses.CategoricalGeneralizedCrossEntropy(), LABEL, LOGITS),
    (losses.CTC(), spec([3], "int32"), spec([9, 5])),
    (losses.BinaryCrossentropy(), spec([1], "bool"), spec([1])),
    (losses.MeanSquaredError(), spec([9, 7, 3], "uint8"), IMAGE),
]
ALONE = [
    (of_masked_tokens, TOKENS, TOKEN_LOGITS),
    (of_next_tokens, TOKENS, TOKEN_LOGITS),
    (of_ignored, TOKENS, TOKEN_LOGITS),
    (own_function, VECTOR, LOGITS),
    (tf.function(error, jit_compile=True), VECTOR, LOGITS),
    (stable_by_the_whole_batch, LABEL, LOGITS),
    (of_rows, VECTOR, LOGITS),
    (focal, LABEL, LOGITS),
    (ordinal, LABEL, LOGITS),
    (lambda y, p: cross_entropy(y, p) * tf.gather([1.0, 2.0, 0.5, 3.0, 1.0], y), LABEL, LOGITS),
    (lambda y, p: cross_entropy(y, p) * tf.gather([1.0, 20.0], tf.minimum(y, 1)), LABEL, LOGITS),
    (lambda y, p: tf.reduce_sum(tf.square(p), -1), LABEL, LOGITS),
    (lambda y, p: tf.cast(y, tf.float32) * 2.0, LABEL, LOGITS),
    (lambda y, p: 0.0 * p[:, 0], LABEL, LOGITS),
    (lambda y, p: 1e-9 * error(y, p), VECTOR, LOGITS),
    (lambda y, p: 1e9 * error(y, p), VECTOR, LOGITS),
    (lambda y, p: tf.where(y == "a", p[:, 0], p[:, 1]), spec([], "string"), LOGITS),
    (lambda y, p: tf.where(y, p, -p)[:, 0], spec([5], "bool"), LOGITS),
    (
        lambda y, p: tf.reduce_mean(tf.square(tf.cast(y, tf.float32) / 255.0 - p), [1, 2, 3]),
        spec([9, 7, 3], "uint8"),
        IMAGE,
    ),
    (lambda y, p: tf.reduce_sum(tf.where(tf.math.is_nan(y), 0.0, tf.square(y - p)), -1), VECTOR, LOGITS),
    (lambda y, p: tf.reduce_max(tf.nn.relu(1.0 - y * p), -1), VECTOR, LOGITS),
    (lambda y, p: tf.math.log(p[:, 0]) * y[:, 0], VECTOR, LOGITS),
    (lambda y, p: -tf.math.log(p[:, 0] - 0.5), VECTOR, LOGITS),
    (lambda y, p: error(tf.cast(y, tf.float64), tf.cast(p, tf.float64)), VECTOR, LOGITS),
    (lambda y, p: error(y, p), spec([5], "float64"), spec([5], "float64")),
    (lambda y, p: error(y, p), spec([5], "bfloat16"), spec([5], "bfloat16")),
    (lambda y, p: tf.reduce_sum(-tf.sort(p, -1) * y, -1), VECTOR, LOGITS),
    (lambda y, p: tf.cast(tf.argmax(p, -1) == y, tf.float32) + cross_entropy(y, p), LABEL, LOGITS),
    (lambda y, p: error(y["a"], p["b"]) + error(y["c"], p["b"]), {"a": VECTOR, "c": VECTOR}, {"b": LOGITS}),
    (lambda y, p: error(y[0], p) * y[1], (VECTOR, FLOAT_LABEL), LOGITS),
    (
        lambda y, p: tf.reduce_sum(tf.square(p), [1, 2]) + tf.cast(tf.reduce_sum(y, -1), tf.float32),
        spec([3], "int32"),
        TOKEN_LOGITS,
    ),
]


def unsized(nest):
    """The same without the sizes of sequences and images."""

    def one(tensor):
        shape = [None if size in (6, 9, 7, 3) else size for size in tensor.shape]
        return tf.TensorSpec(shape, tensor.dtype)

    return tf.nest.map_structure(one, nest)


class AcceptanceTest(parameterized.TestCase):
    def test_losses_of_keras_that_treat_examples_alone(self):
        for index, (loss, y, p) in enumerate(ACCEPTED):
            with self.subTest(f"{loss} {y} {p}"):
                y, p = (unsized(y), unsized(p)) if index % 2 else (y, p)
                loss_mixing.check(per_example_loss.from_keras(loss), (y,), p)

    @parameterized.parameters(False, True)
    def test_functions_that_treat_examples_alone(self, unknown):
        for index, (loss, y, p) in enumerate(ALONE):
            with self.subTest(f"{index} {y} {p}"):
                y, p = (unsized(y), unsized(p)) if unknown else (y, p)
                loss_mixing.check(loss, y, p)

    def test_sizes_that_belong_together_are_found(self):
        def of_half(y, p):
            return tf.reduce_mean(cross_entropy(y, p[:, ::2]), axis=-1)

        def of_pairs(y, p):
            return tf.reduce_mean(tf.square(tf.reshape(p, [tf.shape(p)[0], -1, 2]) - y), axis=[1, 2])

        for loss, y, p in (
            (of_half, spec([None], "int32"), spec([None, 5])),
            (of_pairs, spec([None, 2]), spec([None])),
            (losses.CTC(), spec([None], "int32"), spec([None, 5])),
            (losses.MeanSquaredError(), spec([None]), spec([1])),
            (losses.MeanSquaredError(), spec([5]), spec([None])),
        ):
            with self.subTest(f"{loss}"):
                function = per_example_loss.from_keras(loss) if isinstance(loss, losses.Loss) else None
                loss_mixing.check(function or (lambda y, p, f=loss: f(y[0], p)), (y,), p)

    def test_ragged_and_sparse_targets(self):
        ragged = tf.ragged.constant([[1, 2], [3]])
        sparse = tf.sparse.from_dense([[1.0, 0.0], [0.0, 2.0]])

        def of_lengths(y, p):
            return tf.reduce_sum(tf.square(p), -1) / tf.cast(y.row_lengths(), tf.float32)

        def of_entries(y, p):
            return tf.reduce_sum(tf.square(p - tf.sparse.to_dense(y)), -1)

        loss_mixing.check(of_lengths, ragged, LOGITS)
        loss_mixing.check(of_entries, sparse, spec([2]))
        for loss, y, p in ((of_lengths, ragged, LOGITS), (of_entries, sparse, spec([2]))):
            with self.assertRaisesRegex(ValueError, MIXES):
                loss_mixing.check(lambda y, p, f=loss: f(y, p) - tf.reduce_mean(f(y, p)), y, p)


class WhatIsSaidTest(absltest.TestCase):
    def test_losses_without_one_value_an_example(self):
        for loss in (lambda y, p: tf.reduce_mean(error(y, p)), lambda y, p: tf.square(y - p), losses.dice):
            for size in (5, None):
                with self.assertRaisesRegex(ValueError, f"{NO_VALUES}.*Received: shape="):
                    loss_mixing.check(loss, spec([size]), spec([size]))

    def test_what_runs_on_nothing_synthetic(self):
        def picky(y, p):
            tf.debugging.assert_greater(tf.shape(p)[1], 1000)
            return error(y, p)

        sizes = r"tf.ensure_shape.*Received: inputs=\['float32\[None, None\]', 'float32\[None, None\]'\]"
        for size, message in ((5, "have it accept any of them"), (None, sizes)):
            with self.assertRaisesRegex(ValueError, f"`loss` must run on synthetic inputs.*{message}"):
                loss_mixing.check(picky, spec([size]), spec([size]))
        with self.assertRaisesRegex(ValueError, "number of axes.*tf.ensure_shape.*Received: shapes \\[None\\]"):
            loss_mixing.check(error, tf.TensorSpec(None), LOGITS)

    def test_mixing_where_a_size_is_one(self):
        def squeezed(y, p):
            return tf.reduce_mean(tf.square(tf.squeeze(y) - p[:, None]), axis=-1)

        with self.assertRaisesRegex(ValueError, r"tried on examples of shapes \[\(1,\), \(\)\]"):
            loss_mixing.check(squeezed, spec([None]), spec([]))

    def test_masks_of_predictions(self):
        def of_mask(divide):
            def loss(y, p):
                kept = tf.cast(p._keras_mask, tf.float32)
                return tf.reduce_sum(cross_entropy(y, p) * kept, -1) / divide(kept)

            return loss

        p = tf.zeros([3, 6, 5])
        p._keras_mask = tf.ones([3, 6], tf.bool)
        loss_mixing.check(of_mask(lambda kept: tf.reduce_sum(kept, -1)), TOKENS, p)
        with self.assertRaisesRegex(ValueError, MIXES):
            loss_mixing.check(of_mask(lambda kept: tf.reduce_mean(kept)), TOKENS, p)


class FitTest(parameterized.TestCase):
    @parameterized.product(
        engine=["auto", "vectorized"],
        case=[("labels", "batch hard"), ("labels", "circle"), ("tokens", "tokens but 0"), ("tokens", "tokens but -1")],
    )
    def test_fit_refuses_in_one_sentence(self, engine, case):
        kind, name = case
        loss = MIXING[case]
        x, y = batch(kind)
        if kind == "tokens":
            specs = (tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], y.dtype))
            data = (tf.data.Dataset.from_generator(lambda: iter([(x, y)]), output_signature=specs),)
        else:
            data = (x, y)
        model = small_model(kind, private_model.PrivateModel, known=False)
        model.compile(sgd.DPSGD(0.1, 1.0, 1.0, 8, seed=1), loss, engine=engine)
        with self.assertRaisesRegex(ValueError, f"^{MIXES}.*Received: shapes"):
            model.fit(*data, shuffle=False, verbose=0)

    def test_a_function_is_tried_once_for_targets_of_each_shape(self):
        calls = []

        def counted(y, p):
            calls.append(p.shape)
            return error(y, p)

        x = {size: np.ones((4, size), np.float32) for size in (3, 5)}
        loss = loss_mixing.checked_loss(counted)
        for size in x:
            loss(x[size], tf.constant(x[size]))
            several = len(calls)
            for again in (loss, loss_mixing.checked_loss(counted)):
                again(x[size], tf.constant(x[size]))
            self.assertLen(calls, several + 2)
        self.assertGreater(len(calls), 40)


if __name__ == "__main__":
    absltest.main()
