import gc
import weakref
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import ops

from noisy_sgd.gradients import clipped_sum, clipping, layer_calls, layer_rules
from noisy_sgd.gradients.engines import book_keeping, vectorized
from noisy_sgd.gradients.trials import example_axis, synthetic
from noisy_sgd.models import normalizer_free
from noisy_sgd.training import distribution
from tests import oracles

L = keras.layers
RNG = np.random.default_rng(0)


def model_of(function, shape=(4, 3), dtype="float32"):
    return oracles.model_of(function, shape, dtype)


def tried(model, x=None):
    example_axis.check(model, layer_calls.layers_with_weights(model), model.input if x is None else x)


def squared(y, predictions):
    return tf.reduce_sum(tf.reshape(tf.square(predictions), [tf.shape(predictions)[0], -1]), axis=1) * y


class TokensAndPositions(L.Layer):
    """One row of positions for all examples, which `combine` puts together with the tokens."""

    def __init__(self, combine, ids=lambda length: ops.arange(length)):
        super().__init__()
        self.tokens, self.positions = L.Embedding(7, 3), L.Embedding(4, 3, name="positions")
        self.combine, self.ids = combine, ids

    def call(self, inputs):
        tokens = ops.cast(inputs[:, :, 0] > 0, "int32")
        return self.combine(self.tokens(tokens), self.positions(self.ids(ops.shape(tokens)[1])))


def timemajor(x):
    return ops.transpose(L.Dense(2, name="late")(ops.transpose(x, (1, 0, 2))), (1, 0, 2))


@tf.custom_gradient
def with_gradients_of_one_norm(x):
    return tf.identity(x), lambda slope: slope / tf.norm(slope)


MISPLACED = (
    (
        "gradients",
        lambda x: L.Lambda(with_gradients_of_one_norm)(L.Dense(2, name="normed")(x)),
        "'normed'.*gradient of one example's outputs changes",
    ),
    (
        "positions_whose_first_axis_is_read",
        lambda x: TokensAndPositions(lambda x, p: x + ops.sum(p, axis=0))(x),
        "'positions'.*without an axis of examples, .*model's outputs change",
    ),
    (
        "positions_of_a_fixed_rank",
        lambda x: TokensAndPositions(lambda x, p: x + ops.transpose(ops.transpose(p, (1, 0)), (1, 0)))(x),
        "'positions'.*without an axis of examples, .*model's outputs change",
    ),
    # Repeated, the first of the equal rows is all examples'.
    (
        "positions_of_one_row",
        lambda x: TokensAndPositions(lambda x, p: x + p[:1], lambda length: ops.arange(length)[None])(x),
        "'positions'.*gradient of one example's outputs changes",
    ),
    ("timemajor", timemajor, "'late'.* 4 rows for 2"),
    ("flat", lambda x: ops.reshape(L.Dense(2, name="flat")(ops.reshape(x, (-1, 3))), (-1, 4, 2)), "'flat'.* 8 rows"),
    ("turned", lambda x: ops.flip(L.Dense(2, name="turned")(ops.flip(x, 0)), 0), "'turned'.*not the examples"),
    ("rolled", lambda x: ops.roll(L.Dense(2, name="rolled")(ops.roll(x, 2, 0)), -2, 0), "'rolled'.*not the examples"),
    (
        "copies",
        lambda x: ops.flip(normalizer_free.SkipGain(0.5, name="copies")(ops.flip(x, 0)), 0),
        "'copies'.*not the examples",
    ),
    (
        "constant",
        lambda x: x * ops.mean(L.Dense(1, name="constant")(ops.zeros_like(x) + 1.0), axis=0, keepdims=True),
        "'constant'.*another example's outputs",
    ),
    # At 2 examples there are as many rows.
    ("two", lambda x: ops.flip(timemajor(ops.flip(x[:, :2], 0)), 0), "'late'"),
)


class TurnedByKind(keras.Model):
    """Works on the reversed batch where its inputs have another number of axes than 2, another type or structure."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2, name="dense")

    def call(self, inputs):
        usual = not isinstance(inputs, dict) and inputs.dtype == "float32" and len(inputs.shape) == 2
        x = ops.cast(inputs["x"] if isinstance(inputs, dict) else inputs, "float32")
        return self.dense(x) if usual else ops.flip(self.dense(ops.flip(x, 0)), 0)


class InParts(keras.Model):
    """Adds one table of 4 positions to every 4 positions of its inputs, so that long inputs take more calls."""

    def __init__(self):
        super().__init__()
        self.positions, self.dense = L.Embedding(4, 3, name="positions"), L.Dense(1)

    def call(self, inputs):
        parts = [inputs[:, i : i + 4] for i in range(0, inputs.shape[1], 4)]
        return self.dense(sum(ops.tanh(part + part * self.positions(ops.arange(4))) for part in parts))


class InAnyOrder(keras.Model):
    """Looks words and positions up in one table, in an order that can be changed."""

    def __init__(self, positions):
        super().__init__()
        self.table, self.reverse, self.positions = L.Embedding(4, 3, name="table"), False, positions

    def call(self, inputs):
        ids = [inputs, ops.convert_to_tensor(self.positions, "int32")]
        return sum(self.table(one) for one in (ids[::-1] if self.reverse else ids))


class Scaled(L.Layer):
    """Has a rule of its own, given by the test."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],))

    def call(self, inputs):
        return inputs * self.gain


class Noisy(Scaled):
    """Draws at random."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs * self.gain + keras.random.normal(ops.shape(inputs), seed=self.seed)


def failing(layer, inputs, weights):
    return tf.reshape(inputs, [-1, 11]) * weights["gain"]


def wrong(layer, inputs, weights):
    return inputs * tf.reverse(weights["gain"], [-1])[:, None]


def noisy(layer, inputs, weights):
    return inputs * weights["gain"][:, None] + keras.random.normal(ops.shape(inputs), seed=layer.seed)


class PlacementTest(parameterized.TestCase):
    @parameterized.named_parameters(*MISPLACED)
    def test_rows_that_are_not_the_examples_are_refused_and_auto_takes_the_other_engine(self, function, reason):
        model = model_of(function)
        x, y = tf.constant(RNG.normal(size=(4, 4, 3)), tf.float32), tf.ones([4])
        specs = [tf.TensorSpec([None, *array.shape[1:]]) for array in (x, y)]
        for _ in range(2):
            with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
                tried(model)
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            book_keeping.clipped_sum(model, squared, x, y, clip=clipping.flat(0.1))

        @tf.function(input_signature=specs, jit_compile=True)
        def auto(x, y):
            found = clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=0.1)
            return found.norms, found.values

        norms, values = auto(x, y)
        expected = clipped_sum.clipped_gradient_sum(model, squared, x[:1], y[:1], l2_norm_clip=0.1, engine="vectorized")
        np.testing.assert_allclose(norms[:1], expected.norms, rtol=1e-5)
        difference = tf.linalg.global_norm([a - b for a, b in zip(values, auto(x[1:], y[1:])[1], strict=True)])
        self.assertLess(difference, 0.1 * (1 + 1e-5))

    @parameterized.parameters((ops.arange, [4]), (lambda length: ops.arange(length)[None], [1, 4]))
    def test_calls_on_inputs_without_an_axis_of_examples_are_found(self, ids, shape):
        model = model_of(lambda x: L.Dense(2)(TokensAndPositions(lambda x, p: x + p, ids)(x)))
        layers = layer_calls.layers_with_weights(model)
        index = [layer.name for layer, _ in layers].index("positions")
        self.assertEqual(example_axis.check(model, layers, model.input), {(index, 0): shape})
        other = model_of(L.Dense(2))
        self.assertEqual(example_axis.check(other, layer_calls.layers_with_weights(other), other.input), {})

    def test_a_rule_of_another_formula_is_found_by_a_small_difference(self):
        def nearly(layer, inputs, weights):
            return inputs * weights["gain"][:, None] * 1.002

        keras.utils.set_random_seed(1)
        layer_rules.register(Scaled, layer_rules.scale.rule(nearly))
        self.addCleanup(layer_rules.shared.registry._RULES.pop, Scaled)
        with self.assertRaisesRegex(layer_rules.NoRuleError, "its rule computes something else"):
            tried(model_of(lambda x: Scaled()(L.Dense(3)(x))))

    def test_a_layer_whose_own_call_is_wrong_is_found(self):
        def without_bias(layer, inputs):
            return layer.convolution_op(inputs, layer.kernel)

        model = model_of(L.Conv3D(2, 2, padding="same"), (2, 3, 2, 2))
        with (
            mock.patch.object(L.Conv3D, "call", without_bias),
            self.assertRaisesRegex(layer_rules.NoRuleError, r"\(Conv3D\): its rule computes something else"),
        ):
            tried(model)

    def test_models_whose_rows_are_the_examples_pass_and_stay_as_they_were(self):
        keras.utils.set_random_seed(1)
        shared, dropout = L.Dense(4), L.Dropout(0.5)
        nested = keras.Sequential([L.Conv1D(4, 2), L.LayerNormalization(), L.Flatten()])
        inputs = {"a": keras.Input((4, 4), name="a"), "b": keras.Input((4,), name="b")}
        x = nested(dropout(shared(shared(inputs["a"]))))
        model = keras.Model(inputs, L.Dense(2)(L.Concatenate()([x, shared(inputs["b"])])))
        weights, state = [w.copy() for w in model.get_weights()], dropout.seed_generator.state.numpy().copy()
        tried(model)
        for before, after in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(dropout.seed_generator.state.numpy(), state)
        self.assertFalse([layer.name for layer in model._flatten_layers() if "call" in vars(layer)])
        self.assertEmpty(model.losses)

    @parameterized.parameters(
        (failing, "its rule fails.*InvalidArgumentError"), (wrong, "its rule computes something else")
    )
    def test_a_rule_that_fails_or_is_another_formula_is_named_and_auto_takes_the_other_engine(self, forward, reason):
        layer_rules.register(Scaled, layer_rules.scale.rule(forward))
        self.addCleanup(layer_rules.shared.registry._RULES.pop, Scaled)
        model = model_of(lambda x: Scaled(name="scaled")(L.Dense(3)(x)))
        x, y = tf.constant(RNG.normal(size=(4, 4, 3)), tf.float32), tf.ones([4])
        with self.assertRaisesRegex(layer_rules.NoRuleError, f"'scaled' \\(Scaled\\): {reason}"):
            book_keeping.clipped_sum(model, squared, x, y, clip=clipping.flat(0.1))
        with self.assertLogs("absl", "WARNING") as logs:
            found = clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=0.1)
        self.assertRegex(logs.output[0], f"'scaled'.*{reason}")
        expected = clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=0.1, engine="vectorized")
        np.testing.assert_array_equal(found.norms, expected.norms)

    def test_a_rule_of_a_layer_that_draws_at_random_is_taken(self):
        layer_rules.register(Noisy, layer_rules.scale.rule(noisy))
        self.addCleanup(layer_rules.shared.registry._RULES.pop, Noisy)
        tried(model_of(lambda x: Noisy()(x)))

    def test_attention_bfloat16_and_unknown_lengths_pass(self):
        def function(x):
            x = L.MultiHeadAttention(2, 3, dropout=0.5, dtype="mixed_bfloat16")(x, x)
            return L.Dense(2, dtype="mixed_bfloat16")(L.GlobalAveragePooling1D(dtype="mixed_bfloat16")(x))

        tried(model_of(function, (None, 3)))
        tried(model_of(lambda x: L.TimeDistributed(L.Dense(2))(x)))

    def test_a_model_is_tried_once_and_again_with_other_layers(self):
        model = model_of(lambda x: L.Dense(2)(L.Dense(3)(x)))
        model.layers[1].trainable = False
        with mock.patch.object(synthetic, "stateless_call", wraps=synthetic.stateless_call) as call:
            tried(model)
            passes = call.call_count
            tried(model, np.ones((5, 4, 3), np.float32))
            self.assertEqual(call.call_count, passes)
            model.layers[1].trainable = True
            tried(model)
            self.assertEqual(call.call_count, 2 * passes)
        gone = weakref.ref(model)
        del model, call
        gc.collect()
        self.assertIsNone(gone())

    @parameterized.parameters(
        (lambda x: x[:, None] * tf.ones([1, 3, 1]), 1), (lambda x: {"x": x}, 1), (lambda x: tf.cast(x, tf.int32), 1),
        (lambda x: x[:, None, None] * tf.ones([1, 2, 3, 1]), 2),
    )  # fmt: skip
    def test_a_model_is_tried_on_every_kind_of_inputs(self, other_kind, views):
        keras.utils.set_random_seed(0)
        model, x, y = TurnedByKind(), tf.constant(RNG.normal(scale=9, size=(4, 3)), tf.float32), tf.ones([4])

        def summed(x, y, views=1):
            return clipped_sum.clipped_gradient_sum(model, squared, x, y, l2_norm_clip=0.1, views=views).values

        summed(x, y)
        other = other_kind(x)
        with self.assertRaisesRegex(layer_rules.NoRuleError, "'dense'.*not the examples"):
            book_keeping.clipped_sum(model, squared, other, y, clip=clipping.flat(0.1), views=views)
        without_first = tf.nest.map_structure(lambda t: t[1:], other)
        pairs = zip(summed(other, y, views), summed(without_first, y[1:], views), strict=True)
        self.assertLess(tf.linalg.global_norm([a - b for a, b in pairs]), 0.1 * (1 + 1e-5))
        tried(model, x)

    def test_a_model_is_tried_again_on_longer_inputs_for_which_it_calls_a_layer_more_often(self):
        keras.utils.set_random_seed(0)
        model = InParts()
        for length in (4, 8):
            # As many examples as positions in one call.
            x, y = tf.constant(RNG.normal(size=(4, length, 3)), tf.float32), tf.ones([4])
            model(x)
            found, expected = (
                engine.clipped_sum(model, squared, x, y, clip=clipping.flat(0.1))
                for engine in (book_keeping, vectorized)
            )
            np.testing.assert_allclose(found.norms, expected.norms, rtol=1e-5)

    @parameterized.product(positions=[np.arange(4), np.arange(4)[None]], examples=[4, None])
    def test_a_model_that_calls_in_another_order_than_in_the_trial_is_refused(self, positions, examples):
        model = InAnyOrder(positions)
        model(tf.zeros([4, 4], tf.int32))
        specs = tf.TensorSpec([examples, 4], tf.int32), tf.TensorSpec([examples], tf.float32)

        def traced():
            def step(x, y):
                return book_keeping.clipped_sum(model, squared, x, y, clip=clipping.flat(0.1)).norms

            tf.function(step, autograph=False).get_concrete_function(*specs)

        traced()
        model.reverse = True
        with self.assertRaisesRegex(layer_rules.NoRuleError, "'table'.*another order"):
            traced()

    @parameterized.parameters(
        ([5], [5], [4, 5]),
        ([5], [None], [4, None]),
        ([5], [4], None),
        ([1, 6], [1, 6], [4, 6]),
        ([1, 6], [1, 7], None),
        ([1, 6], [4, 6], None),
        ([1, 6], [None, 6], None),
        ([5], [1, 5], None),
    )
    def test_a_call_is_repeated_where_its_inputs_have_the_shape_of_the_trial(self, tried_shape, shape, expected):
        repeated = layer_calls.Repeated([], {(0, 1): tf.TensorShape(tried_shape)}, rows=4)

        def traced(ids):
            result = repeated.inputs((0, 1), (ids,), {"mask": None})
            self.assertEqual(None if result is None else result[0][0].shape.as_list(), expected)
            return ids

        tf.function(traced, autograph=False).get_concrete_function(tf.TensorSpec(shape, tf.int32))

    def test_a_functional_model_is_tried_once_for_all_types_and_nests_that_it_converts(self):
        model, x = model_of(L.Dense(2)), RNG.normal(size=(5, 4, 3))
        with mock.patch.object(synthetic, "stateless_call", wraps=synthetic.stateless_call) as call:
            tried(model)
            passes = call.call_count
            for like in (x, x.astype(np.float32), x.astype(np.uint8), [x], (x,)):
                tried(model, like)
            self.assertEqual(call.call_count, passes)

    def test_views_are_rows_of_their_own(self):
        model = model_of(timemajor, (2, 3))
        x = tf.constant(RNG.normal(size=(1, 2, 2, 3)), tf.float32)
        with self.assertRaisesRegex(layer_rules.NoRuleError, "'late'"):
            book_keeping.clipped_sum(model, squared, x, tf.ones([1]), clip=clipping.flat(0.1), views=2)

    def test_replicas_try_it_while_they_trace(self):
        strategy = distribution.make_strategy("mirrored")
        with strategy.scope():
            model, other = model_of(timemajor), model_of(L.Dense(2))

        def replica(model):
            x = tf.ones([4, 4, 3])
            return book_keeping.clipped_sum(model, squared, x, tf.ones([4]), clip=clipping.flat(0.1)).norms

        with self.assertRaisesRegex(layer_rules.NoRuleError, "'late'"):
            tf.function(lambda: strategy.run(replica, args=(model,)), autograph=False)()
        self.assertLen(
            strategy.experimental_local_results(
                tf.function(lambda: strategy.run(replica, args=(other,)), autograph=False)()
            ),
            2,
        )


if __name__ == "__main__":
    absltest.main()
