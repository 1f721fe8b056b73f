"""Every rule, by every route, against a float64 loop over examples."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping
from noisy_sgd.gradients.layer_rules import convolution_site
from noisy_sgd.gradients.layer_rules.shared import devices, windows
from noisy_sgd.models import group_normalization, normalizer_free

L = keras.layers
WSConv = normalizer_free.WeightStandardizedConv2D
IMAGE = (6, 7, 4)
EXAMPLES = 3


def squared_error(y, predictions):
    return tf.reduce_mean(tf.square(tf.cast(predictions, y.dtype) - y), axis=1)


def network(make_layers, input_shape, dtype, input_dtype=None):
    """The layers one after another, then a head that sees every entry with a weight of its own."""
    keras.utils.set_random_seed(1)
    with_dtype = keras.dtype_policies.get(dtype)
    inputs = keras.Input(input_shape, dtype=input_dtype or "float64")
    x = inputs
    for layer in make_layers(with_dtype):
        x = layer(x)
    outputs = L.Dense(2, dtype=dtype)(L.Flatten(dtype=dtype)(x))
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + 0.3 * generator.normal(size=weight.shape))
    return model


def loop(model, x, y, bound, views):
    """Norms and clipped sums, one example after another."""
    weights = [weight.value for weight in model.trainable_weights]
    norms, sums = [], [np.zeros(weight.shape) for weight in weights]
    for i in range(len(y)):
        inputs = x[i] if views > 1 else x[i : i + 1]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squared_error(np.repeat(y[i : i + 1], views, axis=0), model(inputs, training=True)))
        slopes = tape.gradient(loss, weights, unconnected_gradients="zero")
        slopes = [tf.convert_to_tensor(slope).numpy() for slope in slopes]
        norms.append(np.sqrt(sum(np.sum(slope**2) for slope in slopes)))
        sums = [total + min(1.0, bound / norms[-1]) * slope for total, slope in zip(sums, slopes, strict=True)]
    return np.array(norms), sums


def preferring(name):
    """A `choose` that takes the named route wherever there is one."""

    def choose(routes, *budget):
        del budget
        return next((route for route in routes if route.name == name), routes[0])

    return choose


CONVOLUTIONS = {
    "same": lambda d: [L.Conv2D(5, 3, padding="same", activation="relu", dtype=d)],
    "stride": lambda d: [L.Conv2D(5, 3, strides=2, padding="same", dtype=d)],
    "folded": lambda d: [L.Conv2D(5, 4, strides=2, padding="same", dtype=d)],
    "folded_valid": lambda d: [L.Conv2D(5, (2, 4), strides=2, dtype=d)],
    "oblong": lambda d: [L.Conv2D(5, (2, 3), strides=(1, 2), use_bias=False, dtype=d)],
    "dilation": lambda d: [L.Conv2D(5, 3, dilation_rate=2, padding="same", dtype=d)],
    "groups": lambda d: [L.Conv2D(6, 3, groups=2, strides=2, dtype=d)],
    "one_by_one": lambda d: [L.Conv2D(5, 1, strides=2, padding="same", dtype=d)],
    "depthwise": lambda d: [L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, dtype=d)],
    "depthwise_dilation": lambda d: [L.DepthwiseConv2D(3, dilation_rate=2, activation="tanh", dtype=d)],
    "standardized": lambda d: [WSConv(5, 3, padding="same", gamma=1.7, dtype=d)],
    "standardized_small_image": lambda d: [L.MaxPooling2D(3, dtype=d), WSConv(5, 3, padding="same", dtype=d)],
    "standardized_add": lambda d: [
        WSConv(6, 3, strides=2, groups=2, epsilon_form="add", unbiased_variance=True, epsilon=0.1, dtype=d)
    ],
    "standardized_floor": lambda d: [WSConv(5, 3, epsilon=1e3, use_bias=False, dtype=d)],
}
OTHERS = {
    "dense": ((5,), lambda d: [L.Dense(4, activation="relu", dtype=d), L.Dense(3, use_bias=False, dtype=d)]),
    "dense_positions": ((6, 5), lambda d: [L.Dense(4, activation="tanh", dtype=d)]),
    "dense_planes": ((2, 3, 5), lambda d: [L.Dense(4, dtype=d)]),
    "einsum": (
        (6, 5),
        lambda d: [
            L.EinsumDense("abc,cde->abde", (6, 2, 3), bias_axes="de", dtype=d),
            L.EinsumDense("abde,def->abf", (6, 4), bias_axes="f", activation="relu", dtype=d),
        ],
    ),
    "einsum_blocks": ((6, 5), lambda d: [L.EinsumDense("abc,bcd->adb", (4, 6), bias_axes="b", dtype=d)]),
    "einsum_ellipsis": ((6, 3, 5), lambda d: [L.EinsumDense("...x,xy->...y", 4, bias_axes="y", dtype=d)]),
    "conv1d": ((9, 4), lambda d: [L.Conv1D(5, 3, strides=2, padding="same", dtype=d)]),
    "conv1d_causal": ((9, 4), lambda d: [L.Conv1D(5, 3, padding="causal", dilation_rate=2, dtype=d)]),
    "conv3d": ((4, 5, 6, 2), lambda d: [L.Conv3D(3, (2, 3, 2), strides=(1, 2, 1), padding="same", dtype=d)]),
    "depthwise1d": ((7, 4), lambda d: [L.DepthwiseConv1D(3, dtype=d)]),
    "group_norm": (IMAGE, lambda d: [L.GroupNormalization(2, dtype=d)]),
    "group_norm_axis": ((4, 6), lambda d: [L.GroupNormalization(2, axis=1, scale=False, dtype=d)]),
    "our_group_norm": (IMAGE, lambda d: [group_normalization.GroupNormalization(2, center=False, dtype=d)]),
    "layer_norm": ((5, 4), lambda d: [L.LayerNormalization(dtype=d)]),
    "layer_norm_axes": ((5, 4), lambda d: [L.LayerNormalization(axis=[1, 2], center=False, dtype=d)]),
    "rms_norm": ((5, 4), lambda d: [L.RMSNormalization(dtype=d)]),
    "layer_norm_unsorted": ((3, 4, 5), lambda d: [L.LayerNormalization(axis=[-1, 1], dtype=d)]),
    "layer_norm_descending": ((3, 4, 5), lambda d: [L.LayerNormalization(axis=[3, 1], epsilon=0.1, dtype=d)]),
    "layer_norm_negative": ((3, 4, 5), lambda d: [L.LayerNormalization(axis=(-2,), dtype=d)]),
    "layer_norm_mixed_axes": ((3, 4, 5), lambda d: [L.LayerNormalization(axis=[2, -1], scale=False, dtype=d)]),
    "layer_norm_all_axes": ((3, 4, 5), lambda d: [L.LayerNormalization(axis=[-1, -2, 1], dtype=d)]),
    "group_norm_negative": ((6, 4, 5), lambda d: [L.GroupNormalization(2, axis=-3, dtype=d)]),
    "group_norm_each": ((3, 6, 5), lambda d: [L.GroupNormalization(-1, axis=-2, center=False, dtype=d)]),
    "rms_norm_axes": ((3, 4, 5), lambda d: [L.RMSNormalization(axis=[3, 2], dtype=d)]),
    "rms_norm_all_axes": ((3, 4, 5), lambda d: [L.RMSNormalization(axis=[-1, -2, -3], dtype=d)]),
    "rms_norm_first_axis": ((4, 4), lambda d: [L.RMSNormalization(axis=1, dtype=d)]),
    "einsum_turned": ((6, 5), lambda d: [L.EinsumDense("abc,cde->aedb", (2, 3, 6), bias_axes="e", dtype=d)]),
    "dense_of_one": ((6, 1), lambda d: [L.Dense(1, dtype=d)]),
    "depthwise_valid": (IMAGE, lambda d: [L.DepthwiseConv2D((1, 3), padding="valid", use_bias=False, dtype=d)]),
    "skip_gain": (IMAGE, lambda d: [normalizer_free.SkipGain(0.5, alpha=0.2, dtype=d)]),
}
CASES = {**{name: (IMAGE, make) for name, make in CONVOLUTIONS.items()}, **OTHERS}


class Checks(parameterized.TestCase):
    def check(
        self, make_layers, input_shape, *, routes=("per_example",), views=1, device="cpu", inputs=None, spoil=None
    ):
        exact = network(make_layers, input_shape, "float64", None if inputs is None else "int32")
        single = network(make_layers, input_shape, "float32", None if inputs is None else "int32")
        if spoil is not None:
            spoil(exact)
        single.set_weights(exact.get_weights())
        exact.set_weights(single.get_weights())
        generator = np.random.default_rng(2)
        shape = (EXAMPLES, views, *input_shape) if views > 1 else (EXAMPLES, *input_shape)
        x = generator.normal(size=shape).astype(np.float32) if inputs is None else inputs(generator, shape)
        y = generator.normal(size=(EXAMPLES, 2))
        norms, sums = loop(exact, x, y, 0.5, views)
        size = np.sqrt(sum(np.sum(total**2) for total in sums))
        for route in routes:
            with (
                self.subTest(route=route),
                absltest.mock.patch.object(layer_rules, "choose", preferring(route)),
                absltest.mock.patch.object(devices, "kind", lambda: device),
            ):
                result = book_keeping.clipped_sum(
                    single,
                    squared_error,
                    tf.constant(x),
                    tf.constant(y, tf.float32),
                    clip=clipping.flat(0.5),
                    views=views,
                )
                np.testing.assert_allclose(result.norms, norms, rtol=1e-5)
                for value, total, weight in zip(result.values, sums, single.trainable_weights, strict=True):
                    self.assertEqual(value.dtype, tf.float32)
                    error = np.linalg.norm(value - total)
                    self.assertLess(error, 1e-5 * np.linalg.norm(total) + 1e-6 * size, msg=weight.path)


class RulesTest(Checks):
    @parameterized.product(case=list(CASES), views=[1, 2])
    def test_equals_float64_loop_by_every_route(self, case, views):
        input_shape, make_layers = CASES[case]
        self.check(make_layers, input_shape, routes=("per_example", "formed_twice", "gram"), views=views)

    @parameterized.parameters(*CONVOLUTIONS, "conv3d", "einsum_blocks")
    def test_equals_float64_loop_as_on_an_accelerator(self, case):
        input_shape, make_layers = CASES[case]
        self.check(make_layers, input_shape, routes=("per_example", "gram"), device="accelerator")

    @parameterized.product(
        case=["same", "stride", "oblong", "dilation", "one_by_one", "standardized", "conv1d", "conv3d"],
        views=[1, 2],
    )
    def test_many_channels_as_on_an_accelerator(self, case, views):
        input_shape, make_layers = CASES[case]
        by_offset = absltest.mock.Mock(wraps=windows.by_offset)
        with (
            absltest.mock.patch.object(convolution_site, "WIDE", 1),
            absltest.mock.patch.object(windows, "by_offset", by_offset),
        ):
            self.check(make_layers, input_shape, routes=("per_example",), device="accelerator", views=views)
        by_offset.assert_called()

    @parameterized.product(views=[1, 2], dtype=["int32", "float32"])
    def test_embedding_adds_rows_of_equal_ids(self, views, dtype):
        self.check(
            lambda d: [L.Embedding(5, 3, dtype=d)],
            (8,),
            views=views,
            inputs=lambda generator, shape: generator.integers(0, 5, shape).astype(dtype),
        )

    def test_embedding_counts_negative_ids_from_the_end(self):
        self.check(
            lambda d: [L.Embedding(5, 3, dtype=d)],
            (6,),
            inputs=lambda generator, shape: np.tile(np.array([-1, 4, 0, -5, 2, 2], np.int32), (shape[0], 1)),
        )

    @parameterized.parameters(0.0, 1e-6)
    def test_standardized_convolution_with_a_gain_that_vanishes(self, gain):
        def spoil(model):
            layer = model.layers[2]
            layer.gain.assign(gain * np.ones(layer.gain.shape))

        make_layers = CONVOLUTIONS["standardized_small_image"]
        self.check(make_layers, IMAGE, routes=("per_example", "formed_twice", "gram"), spoil=spoil)

    @parameterized.product(
        case=["standardized", "standardized_small_image", "same", "einsum", "our_group_norm"], frozen=[0, -1]
    )
    def test_one_frozen_weight(self, case, frozen):
        input_shape, make_layers = CASES[case]

        def with_frozen(dtype):
            layers, shape = make_layers(dtype), (1, *input_shape)
            for layer in layers:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)
            layers[-1]._trainable_variables[frozen].trainable = False
            return layers

        self.check(with_frozen, input_shape, routes=("per_example", "gram"))

    @parameterized.parameters(L.Dense, lambda width, **options: L.Conv1D(width, 2, **options))
    def test_spectral_normalization_equals_the_loop(self, make_layer):
        inputs = keras.Input((5, 4), dtype="float64")
        x = L.SpectralNormalization(make_layer(3, dtype="float64"), dtype="float64")(inputs)
        model = keras.Model(inputs, L.Dense(2, dtype="float64")(L.Flatten(dtype="float64")(x)))
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(EXAMPLES, 5, 4)), generator.normal(size=(EXAMPLES, 2))
        for _ in range(100):
            # Every call in training goes on with the iteration, until nothing changes any more.
            model(x, training=True)
        norms, sums = loop(model, x, y, 0.2, 1)
        found = book_keeping.clipped_sum(model, squared_error, x, y, clip=clipping.flat(0.2))
        np.testing.assert_allclose(found.norms, norms, rtol=1e-9)
        for value, total in zip(found.values, sums, strict=True):
            np.testing.assert_allclose(value, total, rtol=1e-9, atol=1e-12)

    @parameterized.parameters(
        (L.EinsumDense("abc,cd->bad", (3, 4)), "first axis"),
        (L.EinsumDense("abc,de->abde", (3, 2, 2)), "operand alone"),
        (L.LayerNormalization(axis=0), "axis"),
    )
    def test_refuses_what_mixes_examples_or_has_no_formula(self, layer, reason):
        layer.build((3, 3, 4))
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            layer_rules.rule_for(layer)


if __name__ == "__main__":
    absltest.main()
