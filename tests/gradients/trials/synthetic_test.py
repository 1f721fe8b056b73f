import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import ops

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.gradients.trials import model_mixing, synthetic

L = keras.layers


def model_of(function, *inputs):
    inputs = [keras.Input(shape, dtype=dtype, name=f"input_{i}") for i, (shape, dtype) in enumerate(inputs)]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))


def centred(x):
    return x - ops.mean(x, axis=0, keepdims=True)


def masked(x, mask):
    return L.GlobalAveragePooling1D()(L.MultiHeadAttention(1, 2)(x, x, attention_mask=mask[:, None]))


def words(strings):
    return L.Embedding(4, 3)(L.StringLookup(vocabulary=["red", "green", "blue"])(strings))


class TenPositions(L.Layer):
    """Looks up no more than 10 positions."""

    def build(self, input_shape):
        self.table = self.add_weight(name="table", shape=(10, 3))

    def call(self, inputs):
        return inputs + ops.take(self.table, ops.arange(ops.shape(inputs)[1]), axis=0)


def table(ids):
    return ops.take(ops.reshape(ops.arange(8.0), (4, 2)), ops.cast(ids, "int32"), axis=0)


INPUTS = (
    ("ids_as_floats", lambda x: L.Flatten()(L.Embedding(7, 3)(x)), ((5,), "float32")),
    ("lookup_of_floats", table, ((5,), "float32")),
    ("boolean_mask", masked, ((4, 3), "float32"), ((4,), "bool")),
    ("one_boolean", lambda x: L.Dense(1)(ops.cast(x, "float32")), ((1,), "bool")),
    ("strings", words, ((), "string")),
    ("positive", lambda x: L.Dense(1)(ops.log(ops.sum(x, axis=1, keepdims=True) ** 0.5)), ((5,), "float32")),
    ("few_positions", lambda x: TenPositions()(x), ((None, 3), "float32")),
    ("many_positions", lambda x: L.AveragePooling1D(40)(L.Dense(2)(x)), ((None, 3), "float32")),
)


class SyntheticTest(parameterized.TestCase):
    @parameterized.named_parameters(*INPUTS)
    def test_inputs_fit_the_model_and_show_what_mixes_examples(self, function, *inputs):
        model = model_of(function, *inputs)
        model_mixing.check(model, model.input)
        mixing = model_of(lambda *x: centred(function(*x)), *inputs)
        with self.assertRaisesRegex(ValueError, "treat every example alone"):
            model_mixing.check(mixing, mixing.input)

    def test_bytes_move_as_far_as_pixels_do(self):
        def spread(examples):
            return float(tf.reduce_max(tf.cast(examples.batch(3), tf.float32)))

        self.assertGreater(synthetic.first_success("`model`", keras.Input((8, 8), dtype="uint8"), spread), 200.0)

    def test_losses_without_a_finite_value_show_nothing(self):
        model = model_of(lambda x: L.Dense(3)(x), ((4,), "float32"))
        x, y = np.ones((5, 4), np.float32), np.ones((5, 3), np.float32)

        def loss_fn(y, predictions):
            return tf.reduce_sum(y * tf.math.log(predictions), axis=1) - tf.reduce_mean(predictions)

        with self.assertRaisesRegex(ValueError, "`loss` must treat every example alone"):
            clipped_sum.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0)

    def test_every_entry_moves(self):
        like = [keras.Input((3,), dtype=dtype) for dtype in ("float32", "int64", "bool", "string", "uint8", "bfloat16")]
        for kind in synthetic.KINDS:

            def moved(examples):
                return [np.asarray(a != b) for a, b in zip(examples.batch(3), examples.batch(3, 1), strict=True)]

            for changed in synthetic.first_success("`model`", like, moved, (kind,)):
                np.testing.assert_array_equal(changed, [[False] * 3, [True] * 3, [False] * 3])

    def test_a_model_that_takes_none_of_them_is_refused_in_one_sentence(self):
        class Picky(L.Layer):
            def call(self, inputs):
                tf.debugging.assert_greater(inputs, 100.0)
                return inputs

        model = model_of(lambda x: Picky()(x), ((3,), "float32"))
        message = (
            r"inputs 'input_0'.*must run on synthetic inputs.*InvalidArgumentError.*Received: .*float32\[None, 3\]"
        )
        with self.assertRaisesRegex(ValueError, message):
            model_mixing.check(model, model.input)

    def test_targets_may_be_booleans_or_labels_in_floats(self):
        model = model_of(lambda x: L.Dense(3)(x), ((4,), "float32"))
        x, signs, labels = np.ones((5, 4), np.float32), np.ones((5, 3), bool), np.ones(5, np.float32)

        def signed(y, predictions):
            return tf.reduce_sum(tf.where(y, predictions, -predictions), axis=1)

        def of_labels(y, predictions):
            return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int32), predictions)

        for loss_fn, y in ((signed, signs), (of_labels, labels)):
            clipped_sum.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0)
            with self.assertRaisesRegex(ValueError, "`loss` must treat every example alone"):
                clipped_sum.clipped_gradient_sum(
                    model, lambda y, p, f=loss_fn: f(y, p - tf.reduce_mean(p**2, axis=0)), x, y, l2_norm_clip=1.0
                )


if __name__ == "__main__":
    absltest.main()
