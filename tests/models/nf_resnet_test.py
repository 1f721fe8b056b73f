"""NF-ResNets: sizes, the expected variance, the forward pass written out, seeds, saving."""

import os
import sys
import types
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import models
from noisy_sgd.models import normalizer_free
from noisy_sgd.models.nf_resnet import CONVENTIONS, VARIANTS, Variant, input_scales
from tests import oracles

# The network of 50 layers with its stem and its four stages, but narrow and not deep.
NARROW = Variant(
    input_shape=(64, 64, 3),
    stem="7x7",
    stem_width=8,
    depths=(1, 2, 1, 1),
    widths=(16, 24, 32, 40),
    strides=(1, 2, 2, 2),
)


def written_out(model, variant, convention, images, alpha=0.2):
    """The logits by the published formulas, each factor where they have it, from the model's weights."""
    sizes, chosen = VARIANTS[variant], CONVENTIONS[convention]

    def conv(x, name, stride=1, gamma=chosen.gamma):
        layer = model.get_layer(name)
        kernel = np.asarray(layer.kernel, np.float64)
        fan_in = np.prod(kernel.shape[:-1])
        variance = kernel.var(axis=(0, 1, 2), ddof=1 if chosen.unbiased_variance else 0) * fan_in
        is_sum = chosen.epsilon_form == "add"
        bound = variance + chosen.epsilon if is_sum else np.maximum(variance, chosen.epsilon)
        kernel = gamma * np.asarray(layer.gain) * (kernel - kernel.mean(axis=(0, 1, 2))) / np.sqrt(bound)
        half = kernel.shape[0] // 2
        padding = "SAME" if chosen.padding == "same" else [[0, 0], [half, half], [half, half], [0, 0]]
        return tf.nn.conv2d(x, kernel, stride, padding) + np.asarray(layer.bias)

    x = tf.constant(images / 127.5 - 1.0)
    deep = sizes.stem == "7x7"
    x = conv(x, "stem", 2 if deep else 1, gamma=chosen.gamma if chosen.stem_has_gamma else 1.0)
    if deep and chosen.padding == "same":
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    elif deep:
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for stage, betas in enumerate(input_scales(sizes.depths, alpha)):
        for block, beta in enumerate(betas):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = sizes.strides[stage] if block == 0 else 1
            out = tf.nn.relu(x) * beta
            shortcut = x
            if block == 0 and chosen.shortcut == "avg_pool" and stride > 1:
                shortcut = conv(tf.nn.avg_pool2d(out, 2, stride, "SAME"), f"{name}_shortcut")
            elif block == 0:
                shortcut = conv(out, f"{name}_shortcut", stride)
            out = conv(out, f"{name}_conv1")
            out = conv(tf.nn.relu(out), f"{name}_conv2", stride)
            out = conv(tf.nn.relu(out), f"{name}_conv3")
            x = shortcut + alpha * np.asarray(model.get_layer(f"{name}_skip_gain").gain) * out
    pooled = tf.reduce_mean(tf.nn.relu(x), [1, 2]) * (chosen.gamma if chosen.head_has_gamma else 1.0)
    head = model.get_layer("logits")
    return pooled @ np.asarray(head.kernel) + np.asarray(head.bias)


def weights_of(model):
    return [np.asarray(weight) for weight in model.weights]


class NFResNetTest(parameterized.TestCase):
    def test_the_public_name_is_the_function(self):
        self.assertIsInstance(models.nf_resnet, types.FunctionType)
        self.assertIs(sys.modules["noisy_sgd.models.nf_resnet"].nf_resnet, models.nf_resnet)

    def test_fifty_layers_have_exactly_resnet_50s_parameters(self):
        model = models.nf_resnet("nf_resnet50", 1000)
        gains = [layer for layer in model.layers if isinstance(layer, normalizer_free.SkipGain)]
        self.assertLen(gains, 16)
        self.assertEqual(sum(layer.count_params() for layer in gains), 16)
        self.assertEqual(model.count_params(), 25_557_032 + 16)
        self.assertEqual(sum(int(np.prod(weight.shape)) for weight in model.trainable_weights), 25_557_032 + 16)
        self.assertEqual(model.input_shape, (None, 224, 224, 3))
        self.assertEqual(model.get_layer("stage4_block3_add").output.shape, (None, 7, 7, 2048))

    @parameterized.parameters(("nf_resnet_small", 222_128), ("nf_resnet_tiny", 8_668))
    def test_small_ones_stay_small(self, variant, parameters):
        self.assertEqual(models.nf_resnet(variant, 10).count_params(), parameters)

    def test_expected_variance_is_the_published_one(self):
        expected = [
            [1, 0.98058, 0.96225],
            [0.94491, 0.98058, 0.96225, 0.94491],
            [0.92848, 0.98058, 0.96225, 0.94491, 0.92848, 0.91287],
            [0.89803, 0.98058, 0.96225],
        ]
        for stage, reference in zip(input_scales((3, 4, 6, 3)), expected, strict=True):
            np.testing.assert_allclose(stage, reference, atol=5e-6)

    def test_kernels_carry_the_expected_variance(self):
        model = models.nf_resnet("nf_resnet50", 2, input_shape=(32, 32, 3))
        self.assertAlmostEqual(model.get_layer("stage3_block1_conv1").gamma / normalizer_free.RELU_GAMMA, 0.92848, 5)
        self.assertAlmostEqual(model.get_layer("stage3_block1_shortcut").gamma / normalizer_free.RELU_GAMMA, 0.92848, 5)
        self.assertEqual(model.get_layer("stage3_block1_conv2").gamma, normalizer_free.RELU_GAMMA)

    @parameterized.parameters(
        ("deepmind", 1.0, 1.7139588594436646, 1.0, 1e-2, ["head_gamma"]),
        (
            "timm",
            1.7139588594436646,
            1.7139588594436646,
            1.0,
            0.5,
            ["stage2_block1_pool", "stage2_block1_conv2_padding"],
        ),
        # Its convolution divides by the variance of n - 1, and does not apply its constant.
        ("tan", 1.0, 1.0, 8 / 9, 0.5, ["stage2_block1_pool", "stage2_block1_conv2_padding"]),
    )
    def test_conventions_are_the_published_ones(self, convention, of_stem, of_others, unbiased, damped, own):
        model = models.nf_resnet("nf_resnet_tiny", 10, convention=convention, seed=0, dtype="float64")

        def squared_norms(name, scale=None):
            layer = model.get_layer(name)
            if scale is not None:
                kernel = np.asarray(layer.kernel) - np.mean(layer.kernel, (0, 1, 2))
                divisor = np.var(kernel, (0, 1, 2), ddof=int(convention == "tan")) * layer.fan_in
                layer.kernel.assign(kernel * np.sqrt(scale / divisor))
            return np.sum(np.square(layer.standardized_kernel()), (0, 1, 2))

        np.testing.assert_allclose(squared_norms("stem"), of_stem**2 * unbiased, rtol=1e-5)
        self.assertAlmostEqual(model.get_layer("stage1_block1_conv2").gamma, of_others)
        # A fan-in times a variance of 1e-6: beside 1e-4 as a least value, or with 1e-6 added.
        np.testing.assert_allclose(squared_norms("stem", 1e-6), of_stem**2 * unbiased * damped, rtol=1e-5)
        optional = ("head_gamma", "stage2_block1_pool", "stage2_block1_conv2_padding")
        self.assertEqual([layer for layer in optional if layer in {each.name for each in model.layers}], own)

    @parameterized.product(convention=tuple(CONVENTIONS), variant=("nf_resnet_tiny", "narrow"))
    def test_forward_pass_is_the_published_one(self, convention, variant):
        self.enter_context(mock.patch.dict(VARIANTS, {"narrow": NARROW}))
        model = models.nf_resnet(variant, 10, convention=convention, seed=1, dtype="float64")
        generator = np.random.default_rng(0)
        model.set_weights([weight + generator.normal(0.0, 0.1, weight.shape) for weight in weights_of(model)])
        images = generator.integers(0, 256, (5, *VARIANTS[variant].input_shape)).astype(np.float64)
        expected = written_out(model, variant, convention, images)
        # Keras' Rescaling rounds its constants to float32.
        np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)

    @parameterized.parameters(*CONVENTIONS)
    def test_signal_has_the_expected_variance_block_by_block(self, convention):
        # 32 images of unit normal pixels in all 16 blocks at full width. A kernel of mean 0 and norm gamma turns the
        # variance of what a ReLU leaves into gamma^2 times that, which for a normal input of variance v is kept * v; a
        # block adds alpha^2 times the variance of its three convolutions to its shortcut's.
        shape, gamma = (64, 64, 3), CONVENTIONS[convention].gamma
        model = models.nf_resnet("nf_resnet50", 10, input_shape=shape, pixel_range=None, convention=convention, seed=0)
        kept = gamma**2 * (1 - 1 / np.pi) / 2
        betas = input_scales(VARIANTS["nf_resnet50"].depths)
        places = [(stage, block) for stage, row in enumerate(betas) for block in range(len(row))]
        names = [f"stage{stage + 1}_block{block + 1}" for stage, block in places]
        layers = [f"{name}_{part}" for name in names for part in ("relu1", "skip_gain", "add")]
        probe = keras.Model(model.input, [model.get_layer(name).output for name in layers])
        images = tf.random.stateless_normal((32, *shape), seed=(0, 1))
        found = {name: float(np.var(np.asarray(x, np.float64))) for name, x in zip(layers, probe(images), strict=True)}
        before = first = None
        for name, (stage, block) in zip(names, places, strict=True):
            rectified, branch, after = (found[f"{name}_{part}"] for part in ("relu1", "skip_gain", "add"))
            if before is not None:
                # Behind the pooling of the stem the mean is not 0.
                self.assertAlmostEqual(rectified / (before * (1 - 1 / np.pi) / 2), 1.0, delta=0.2, msg=name)
            convolved = gamma**2 * rectified * betas[stage][block] ** 2
            # On a side of few pixels, many of the 3x3 windows lie partly in the zeros of the padding.
            side = 16 // 2**stage
            inside = (1 - (1 if stage and block == 0 else 2) / (3 * side)) ** 2
            self.assertAlmostEqual(branch / (0.04 * kept**2 * convolved * inside), 1.0, delta=0.35, msg=name)
            if block == 0 and stage > 0 and CONVENTIONS[convention].shortcut == "avg_pool":
                # The mean of four neighbors keeps between a quarter and all of their variance.
                self.assertBetween((after - branch) / convolved, 0.2, 1.1, name)
            else:
                shortcut = convolved if block == 0 else before
                self.assertAlmostEqual(after / (shortcut + branch), 1.0, delta=0.2, msg=name)
            if convention == "deepmind":
                first = first or after - branch
                self.assertAlmostEqual(after / first / (1 + 0.04 * (block + 1)), 1.0, delta=0.25, msg=name)
            before = after

    @parameterized.parameters(("deepmind", 4), ("tan", 1))
    def test_clipped_sums_of_the_fast_engine_are_those_of_a_loop(self, convention, views):
        self.enter_context(mock.patch.dict(VARIANTS, {"narrow": NARROW}))
        model = models.nf_resnet("narrow", 5, input_shape=(32, 32, 3), convention=convention, seed=0, dtype="float64")
        generator = np.random.default_rng(0)
        shape = (3, views, 32, 32, 3) if views > 1 else (3, 32, 32, 3)
        images, labels = generator.integers(0, 256, shape).astype(np.float64), np.array([0, 3, 1])

        fast, reference = (
            noisy_sgd.clipped_gradient_sum(
                model, oracles.cross_entropy, images, labels, l2_norm_clip=0.5, views=views, engine=engine
            )
            for engine in ("book_keeping", "vectorized")
        )
        np.testing.assert_allclose(fast.norms, reference.norms, rtol=1e-6)
        for ours, theirs in zip(fast.values, reference.values, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)

    def test_channels_are_normalized_by_public_numbers(self):
        normalization = ([100.0, 120.0, 90.0], [60.0, 50.0, 40.0])
        model = models.nf_resnet("nf_resnet_small", 10, normalization=normalization, seed=0)
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
        expected = (images - normalization[0]) / normalization[1]
        np.testing.assert_allclose(model.get_layer("rescaling")(images), expected, rtol=1e-5, atol=1e-5)
        clone = keras.Model.from_config(model.get_config())
        np.testing.assert_allclose(clone.get_layer("rescaling")(images), expected, rtol=1e-5, atol=1e-5)

    def test_gamma_and_skip_init_are_switches(self):
        model = models.nf_resnet("nf_resnet_tiny", 10, gamma=1.0, skip_init=0.0, convention="timm")
        self.assertEqual(model.get_layer("stage1_block1_conv2").gamma, 1.0)
        self.assertEqual(float(model.get_layer("stage1_block1_skip_gain").gain), 0.0)
        images = np.ones((1, 8, 8, 1), np.float32)
        shortcut = keras.Model(model.input, model.get_layer("stage1_block1_shortcut").output)
        block = keras.Model(model.input, model.get_layer("stage1_block1_add").output)
        np.testing.assert_array_equal(block(images), shortcut(images))

    def test_weights_are_a_function_of_the_seed(self):
        keras.utils.set_random_seed(1)
        first = weights_of(models.nf_resnet("nf_resnet_tiny", 10, seed=3))
        keras.utils.set_random_seed(2)
        again = weights_of(models.nf_resnet("nf_resnet_tiny", 10, seed=3))
        other = weights_of(models.nf_resnet("nf_resnet_tiny", 10, seed=4))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        self.assertFalse(any(np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1))

    def test_layers_of_equal_shape_start_differently(self):
        model = models.nf_resnet("nf_resnet_small", 10, seed=3)
        kernels = [model.get_layer(f"stage3_block{block}_conv2").kernel for block in (1, 2)]
        self.assertLess(abs(np.corrcoef(np.ravel(kernels[0]), np.ravel(kernels[1]))[0, 1]), 0.02)

    def test_without_a_seed_two_models_differ(self):
        pair = [models.nf_resnet("nf_resnet_tiny", 10).get_layer("stem").kernel.numpy() for _ in range(2)]
        self.assertFalse(np.array_equal(*pair))

    def test_saves_and_loads(self):
        model = models.nf_resnet("nf_resnet_tiny", 10, pixel_range=(0.0, 16.0), convention="tan", seed=0)
        generator = np.random.default_rng(0)
        model.set_weights([weight + generator.normal(size=weight.shape) for weight in weights_of(model)])
        path = os.path.join(self.create_tempdir().full_path, "model.keras")
        model.save(path)
        loaded = keras.models.load_model(path)
        images = generator.integers(0, 17, (3, 8, 8, 1)).astype(np.float32)
        np.testing.assert_array_equal(loaded(images), model(images))
        clone = keras.Model.from_config(model.get_config())
        self.assertEqual(clone.get_config(), model.get_config())

    def test_builds_the_class_it_is_given(self):
        class Special(keras.Model):
            pass

        self.assertIsInstance(models.nf_resnet("nf_resnet_tiny", 10, model_class=Special), Special)

    @parameterized.parameters(((32, 32, 3),), ((28, 28, 1),), ((9, 7, 2),))
    def test_takes_images_of_other_sizes(self, shape):
        model = models.nf_resnet("nf_resnet_small", 4, input_shape=shape)
        self.assertEqual(model(np.zeros((1, *shape), np.uint8)).shape, (1, 4))

    def test_gradients_of_examples_add_up_under_vectorized_map(self):
        model = models.nf_resnet("nf_resnet_tiny", 10, seed=0)
        weights = [weight.value for weight in model.trainable_weights]
        images = tf.random.stateless_uniform((4, 8, 8, 1), seed=(0, 1), maxval=255.0)
        labels = tf.constant([0, 1, 2, 3])

        def gradients(images, labels):
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            return tape.gradient(loss, weights)

        by_example = tf.function(
            lambda x, y: tf.vectorized_map(lambda pair: gradients(pair[0][tf.newaxis], pair[1][tf.newaxis]), (x, y))
        )(images, labels)
        for parts, total in zip(by_example, gradients(images, labels), strict=True):
            np.testing.assert_allclose(tf.reduce_sum(parts, 0), total, rtol=1e-3, atol=1e-5)

    def test_computes_in_bfloat16_and_answers_in_float32(self):
        images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.float32)
        mixed = models.nf_resnet("nf_resnet_tiny", 10, seed=0, dtype="mixed_bfloat16")
        exact = models.nf_resnet("nf_resnet_tiny", 10, seed=0)
        self.assertEqual({weight.dtype for weight in mixed.weights}, {"float32"})
        self.assertEqual(mixed.get_layer("stage2_block1_conv1").compute_dtype, "bfloat16")
        self.assertEqual(mixed(images).dtype, "float32")
        reference = np.asarray(exact(images))
        self.assertLess(np.abs(np.asarray(mixed(images)) - reference).max(), 0.05 * np.abs(reference).max())

    def test_refuses_what_it_does_not_know(self):
        with self.assertRaisesRegex(ValueError, "`variant` must be one of nf_resnet50, .*Received: variant='nf'"):
            models.nf_resnet("nf", 10)
        with self.assertRaisesRegex(ValueError, "`convention` must be one of deepmind, timm, tan"):
            models.nf_resnet("nf_resnet_tiny", 10, convention="own")
        with self.assertRaisesRegex(ValueError, "`num_classes` must be at least 1. Received: num_classes=0"):
            models.nf_resnet("nf_resnet_tiny", 0)


if __name__ == "__main__":
    absltest.main()
