import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum, clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping
from tests import oracles
from tests.gradients.layer_rules import rules_test

L = keras.layers
BOUND, LENGTH, WIDTH = 0.1, 5, 3
D = {"dtype": "float64"}


def encoder_decoder(x):
    """The encoder's states start the decoder."""
    _, *states = L.LSTM(4, return_state=True, **D)(x)
    return L.LSTM(4, return_sequences=True, **D)(x * 0.5, initial_state=states)


def initial_state_and_mask(x):
    """The first steps do not count, though there is a state before them."""
    state = L.Dense(4, **D)(x[:, 0])
    mask = keras.ops.any(keras.ops.not_equal(x, 0), axis=2)
    return L.GRU(4, return_sequences=True, go_backwards=True, **D)(x, initial_state=state, mask=mask)


CASES = {
    "lstm": lambda x: L.LSTM(4, **D)(x),
    "lstm_sequences": lambda x: L.LSTM(4, return_sequences=True, use_bias=False, unit_forget_bias=False, **D)(x),
    "lstm_unrolled": lambda x: L.LSTM(4, unroll=True, recurrent_activation="hard_sigmoid", **D)(x),
    "lstm_of_cell": lambda x: L.RNN(L.LSTMCell(4, **D), **D)(x),
    "gru": lambda x: L.GRU(4, return_sequences=True, **D)(x),
    "gru_reset_before": lambda x: L.GRU(4, reset_after=False, return_sequences=True, **D)(x),
    "gru_without_bias": lambda x: L.GRU(4, use_bias=False, **D)(x),
    "simple": lambda x: L.SimpleRNN(4, return_sequences=True, **D)(x),
    "simple_linear": lambda x: L.SimpleRNN(4, activation=None, use_bias=False, go_backwards=True, **D)(x),
    "bidirectional": lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True, **D), **D)(x),
    "stacked": lambda x: L.GRU(3, **D)(L.LSTM(4, return_sequences=True, **D)(x)),
    "encoder_decoder": encoder_decoder,
    "masked_lstm": lambda x: L.LSTM(4, **D)(L.Masking(**D)(x)),
    "masked_gru": lambda x: L.GRU(4, return_sequences=True, **D)(L.Masking(**D)(x)),
    "masked_to_zero": lambda x: L.GRU(4, zero_output_for_mask=True, return_sequences=True, **D)(L.Masking(**D)(x)),
    "masked_bidirectional": lambda x: L.Bidirectional(L.GRU(3, reset_after=False, **D), **D)(L.Masking(**D)(x)),
    "masked_initial_state": initial_state_and_mask,
}


def network(case):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((LENGTH, WIDTH), **D)
    x = CASES[case](inputs)
    # Not by Flatten, which warns that it drops the mask.
    model = keras.Model(inputs, L.Dense(2, **D)(keras.ops.reshape(x, (-1, np.prod(x.shape[1:])))))
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + 0.3 * generator.normal(size=weight.shape))
    return model


def data(examples, *views):
    """Sequences of ragged lengths: some end, some begin and one pauses with zeros."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(examples, *views, LENGTH, WIDTH))
    x[0, ..., 3:, :] = 0
    if examples > 2:
        x[1, ..., :2, :] = 0
        x[2, ..., 2, :] = 0
    return x, generator.normal(size=(examples, 2))


def compiled(model, views=1, **options):
    def step(x, y):
        clip = clipping.flat(BOUND)
        result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clip, views=views)
        return result.norms, result.values

    return tf.function(step, autograph=False, **options)


class RecurrentTest(parameterized.TestCase):
    def assert_equal_to_loop(self, model, x, y, **options):
        expected = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
        self.assertLess(max(oracles.relative_errors(compiled(model, **options)(x, y), expected)), 1e-9)

    @parameterized.parameters(*CASES)
    def test_equals_the_loop(self, case):
        model = network(case)
        for examples in (1, 3, 8) if case in ("lstm", "masked_gru") else (3,):
            self.assert_equal_to_loop(model, *data(examples))

    @parameterized.parameters("masked_lstm", "gru_reset_before", "simple")
    def test_by_every_route_and_with_frozen_weights(self, case):
        for frozen in ("", "recurrent_kernel", "bias"):
            model = network(case)
            for weight in model.trainable_weights:
                weight.trainable = weight.name != frozen or "dense" in weight.path
            for route in ("per_example", "formed_twice", "gram"):
                with absltest.mock.patch.object(layer_rules, "choose", rules_test.preferring(route)):
                    self.assert_equal_to_loop(model, *data(3))

    @parameterized.parameters("masked_lstm", "gru")
    def test_xla(self, case):
        self.assert_equal_to_loop(network(case), *data(3), jit_compile=True)

    def test_views_and_a_length_that_the_trace_does_not_know(self):
        inputs = keras.Input((None, WIDTH), **D)
        x = L.Bidirectional(L.GRU(3, **D), **D)(L.Masking(**D)(inputs))
        model = keras.Model(inputs, L.Dense(2, **D)(x))
        x, y = data(3, 2)
        specs = [tf.TensorSpec([None, 2, None, WIDTH], tf.float64), tf.TensorSpec([None, 2], tf.float64)]
        found = compiled(model, views=2).get_concrete_function(*specs)(tf.constant(x), tf.constant(y))
        self.assertLess(max(oracles.relative_errors(found, rules_test.loop(model, x, y, BOUND, 2))), 1e-9)

    def test_dropout_of_the_inputs_is_one_mask_for_all_steps(self):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((LENGTH, WIDTH), **D)
        layer = L.LSTM(4, dropout=0.5, **D)
        model = keras.Model(inputs, layer(inputs))
        x, y = data(3)
        y = y[:, :1]
        state = layer.cell.seed_generator.state

        def norms(engine):
            state.assign([0, 7])
            return engine.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND)).norms

        first = norms(book_keeping)
        self.assertFalse(np.array_equal(state.numpy(), [0, 7]))
        np.testing.assert_array_equal(first, norms(book_keeping))
        # With the layer's own mask, drawn alike, the gradients are those of plain Keras.
        state.assign([0, 7])
        mask = np.asarray(layer.cell.get_dropout_mask(tf.constant(x[:, 0])))
        layer.cell.reset_dropout_mask()
        self.assertIn(0.0, mask)
        plain = keras.Sequential([keras.Input((LENGTH, WIDTH), **D), L.LSTM(4, **D)])
        plain.set_weights(layer.trainable_weights)
        expected, _ = oracles.clipped_sum(plain, oracles.squared_error, x * mask[:, None], y, BOUND)
        np.testing.assert_allclose(first, expected, rtol=1e-9)

    def test_norms_are_those_of_what_is_summed_under_bfloat16(self):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((LENGTH, WIDTH)), L.GRU(4, dtype="mixed_bfloat16")])
        x, y = data(1)
        norms, values = compiled(model)(x.astype(np.float32), y[:, :1].astype(np.float32))
        self.assertEqual({value.dtype for value in values}, {tf.float32})
        np.testing.assert_allclose(oracles.length(values), min(BOUND, norms[0]), rtol=1e-5)

    @parameterized.parameters(
        (lambda: L.LSTM(2, recurrent_dropout=0.5, name="mine"), "'mine' \\(LSTM\\): it has recurrent dropout"),
        (lambda: L.RNN([L.LSTMCell(2), L.LSTMCell(2)]), "\\(LSTMCell\\).*no rule"),
        (lambda: L.ConvLSTM1D(2, 2), "\\(ConvLSTMCell\\).*no rule"),
    )
    def test_what_it_does_not_serve_is_named(self, make, reason):
        shape = (3, 4, 2) if "Conv" in type(make()).__name__ else (3, 2)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, L.Flatten()(make()(inputs)))
        x, y = np.ones((2, *shape), np.float32), np.ones((2, 1), np.float32)
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))

    def test_a_fall_back_names_the_layer(self):
        model = keras.Sequential([keras.Input((2, 2)), L.SimpleRNN(1, recurrent_dropout=0.5, name="mine")])
        with self.assertLogs("absl", "WARNING") as logs:
            clipped_sum.clipped_gradient_sum(
                model, oracles.squared_error, np.ones((1, 2, 2)), np.ones((1, 1)), l2_norm_clip=BOUND
            )
        self.assertRegex(logs.output[0], "Falling back.*'mine'.*recurrent dropout.*leave these out")

    @parameterized.parameters(
        ({"stateful": True}, "stateful"),
        ({"dropout": 0.5, "implementation": 1}, "for each gate"),
        ({"dropout": 1.0}, ""),
    )
    def test_options_that_it_does_not_serve_are_refused(self, options, reason):
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            layer_rules.rule_for(L.GRU(2, **options))

    def test_a_cell_used_elsewhere_too_is_refused(self):
        layer = L.SimpleRNN(WIDTH, **D)
        inputs = keras.Input((LENGTH, WIDTH), **D)
        outputs = layer(inputs) + layer.cell(inputs[:, 0], [inputs[:, 1]])[0]
        model = keras.Model(inputs, outputs)
        x, y = data(3)
        with self.assertRaisesRegex(layer_rules.NoRuleError, "also used outside"):
            compiled(model)(x, y[:, :1])


if __name__ == "__main__":
    absltest.main()
