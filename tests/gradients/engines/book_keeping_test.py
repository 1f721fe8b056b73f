import gc
import threading

import hypothesis
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from noisy_sgd import models
from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping, vectorized
from noisy_sgd.models import normalizer_free
from noisy_sgd.training import distribution
from tests import oracles

L = keras.layers
BOUND = 0.25


def compiled(model, *, jit_compile=False, clip=None, **options):
    clip = clipping.flat(BOUND) if clip is None else clip

    def step(x, y, *mask):
        mask = {"mask": mask[0]} if mask else {}
        result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clip, **mask, **options)
        return result.norms, result.values, result.losses, result.predictions

    return tf.function(step, jit_compile=jit_compile, autograph=False)


def scattered(model, seed=0):
    generator = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + 0.2 * generator.normal(size=weight.shape))
    return model


def tensors_of(shape):
    """Tensors of that shape that something still holds."""
    gc.collect()
    return sum(isinstance(held, type(tf.constant(0.0))) and held.shape == shape for held in gc.get_objects())


def convolutional(dtype="float64"):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2), dtype="float64")
    x = L.Conv2D(4, 3, padding="same", activation="relu", dtype=dtype)(inputs)
    x = L.Add(dtype=dtype)([x, L.GroupNormalization(2, dtype=dtype)(x)])
    outputs = L.Dense(2, dtype=dtype)(L.Flatten(dtype=dtype)(x))
    return scattered(keras.Model(inputs, outputs))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(dtype="float64")
        self.stem = keras.Sequential([L.Conv2D(3, 3, dtype="float64"), L.Flatten(dtype="float64")])
        self.heads = [L.Dense(2, dtype="float64"), L.Dense(2, dtype="float64")]

    def call(self, inputs):
        hidden = self.stem(inputs)
        return self.heads[0](hidden) * keras.ops.tanh(self.heads[1](hidden))


class Gain(L.Layer):
    """A user's layer: y = x * gain."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.gain


RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 6, 6, 2))
TARGETS = RNG.normal(size=(4, 2))


class BookKeepingTest(parameterized.TestCase):
    def assert_same(self, found, expected, rtol=1e-9):
        norms, values = found[:2]
        np.testing.assert_allclose(norms, expected[0], rtol=rtol)
        size = np.sqrt(sum(np.sum(total**2) for total in expected[1]))
        for value, total in zip(values, expected[1], strict=True):
            self.assertLess(np.linalg.norm(value - total), rtol * (np.linalg.norm(total) + 0.1 * size))

    @parameterized.parameters(False, True)
    def test_residual_network_equals_loop(self, jit_compile):
        model = convolutional()
        self.assert_same(
            compiled(model, jit_compile=jit_compile)(IMAGES, TARGETS),
            oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND),
        )

    @parameterized.parameters(False, True)
    def test_normalizer_free_network_equals_loop_in_float32(self, jit_compile):
        exact = scattered(models.nf_resnet("nf_resnet_tiny", 2, pixel_range=None, seed=0, dtype="float64"))
        single = models.nf_resnet("nf_resnet_tiny", 2, pixel_range=None, seed=0, dtype="float32")
        single.set_weights(exact.get_weights())
        exact.set_weights(single.get_weights())
        images = RNG.normal(size=(4, 8, 8, 1)).astype(np.float32)
        found = compiled(single, jit_compile=jit_compile)(images, TARGETS.astype(np.float32))
        self.assert_same(found, oracles.clipped_sum(exact, oracles.squared_error, images, TARGETS, BOUND), rtol=1e-5)

    def test_subclassed_model_equals_loop(self):
        model = Subclassed()
        model(IMAGES)
        self.assert_same(
            compiled(model)(IMAGES, TARGETS), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        )

    def test_works_without_a_function_and_for_an_unknown_batch_size(self):
        model = convolutional()
        expected = oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        eager = book_keeping.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, clip=clipping.flat(BOUND))
        self.assert_same((eager.norms, eager.values), expected)
        specs = [tf.TensorSpec([None, *array.shape[1:]], tf.float64) for array in (IMAGES, TARGETS)]
        step = compiled(model).get_concrete_function(*specs)
        self.assert_same(step(tf.constant(IMAGES), tf.constant(TARGETS)), expected)
        norms, values, _, _ = step(tf.constant(IMAGES[:0]), tf.constant(TARGETS[:0]))
        self.assertEqual(norms.shape, (0,))
        self.assertEqual(sum(np.sum(np.abs(value)) for value in values), 0)

    def test_two_inputs_and_a_layer_used_twice_at_two_sizes(self):
        inputs = {
            "a": keras.Input((6, 6, 2), name="a", dtype="float64"),
            "b": keras.Input((3,), name="b", dtype="float64"),
        }
        shared, mix = L.Conv2D(2, 3, padding="same", dtype="float64"), L.Dense(2, dtype="float64")
        x = mix(shared(L.MaxPooling2D(dtype="float64")(shared(inputs["a"]))))
        x = L.Concatenate(dtype="float64")([L.Flatten(dtype="float64")(x), L.Dense(2, dtype="float64")(inputs["b"])])
        model = scattered(keras.Model(inputs, L.Dense(2, dtype="float64")(x)))
        data = {"a": IMAGES, "b": RNG.normal(size=(4, 3))}
        self.assert_same(
            compiled(model)(data, TARGETS), oracles.clipped_sum(model, oracles.squared_error, data, TARGETS, BOUND)
        )

    def test_attention_through_its_parts(self):
        inputs = keras.Input((5, 4), dtype="float64")
        x = L.MultiHeadAttention(2, 3, dtype="float64")(inputs, inputs)
        x = L.LayerNormalization(dtype="float64")(x)
        model = scattered(keras.Model(inputs, L.Dense(2, dtype="float64")(L.Flatten(dtype="float64")(x))))
        data = RNG.normal(size=(4, 5, 4))
        self.assert_same(
            compiled(model)(data, TARGETS), oracles.clipped_sum(model, oracles.squared_error, data, TARGETS, BOUND)
        )

    def test_frozen_layers_are_left_out_and_need_no_rule(self):
        inputs = keras.Input((6, 6, 2), dtype="float64")
        frozen = L.Conv2DTranspose(2, 3, dtype="float64")
        frozen.trainable = False
        model = keras.Model(inputs, L.Dense(2, dtype="float64")(L.Flatten(dtype="float64")(frozen(inputs))))
        self.assertLen(model.trainable_weights, 2)
        step = compiled(model)
        self.assert_same(
            step(IMAGES, TARGETS), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        )
        names = [node.op for node in step.get_concrete_function(IMAGES, TARGETS).graph.as_graph_def().node]
        self.assertNotIn("Conv2DBackpropFilter", names)

    def test_a_layer_that_is_not_called_gets_zeros(self):
        model = Subclassed()
        model.spare = L.Dense(3, dtype="float64")
        model.spare.build((None, 2))
        model(IMAGES)
        self.assert_same(
            compiled(model)(IMAGES, TARGETS), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        )

    @parameterized.parameters(False, True)
    def test_padding_and_gradients_that_are_not_finite_contribute_nothing(self, jit_compile):
        model = convolutional()
        spoilt = IMAGES.copy()
        spoilt[1], spoilt[2] = np.nan, np.inf
        mask = np.array([1, 0, 1, 1])
        norms, values, losses, _ = compiled(model, jit_compile=jit_compile)(spoilt, TARGETS, mask)
        expected = oracles.clipped_sum(
            model, oracles.squared_error, IMAGES, TARGETS, BOUND, kept=[True, False, False, True]
        )
        self.assertEqual(norms[1], 0)
        self.assertEqual(losses[1], 0)
        self.assertFalse(np.isfinite(norms[2]))
        kept = np.array([0, 3])
        self.assert_same((np.asarray(norms)[kept], values), (expected[0][kept], expected[1]))
        norms, values, _, _ = compiled(model, jit_compile=jit_compile)(spoilt, TARGETS, np.zeros(4))
        self.assertEqual(sum(np.sum(np.abs(value)) for value in [norms, *values]), 0)

    @parameterized.parameters(False, True)
    def test_views_share_one_clipped_gradient(self, jit_compile):
        model = convolutional()
        views = RNG.normal(size=(4, 3, 6, 6, 2))
        options = {"clip": clipping.flat(BOUND), "views": 3, "mask": np.array([1, 1, 0, 1])}
        expected = vectorized.clipped_sum(model, oracles.squared_error, views, TARGETS, **options)
        del options["mask"]
        norms, values, losses, predictions = compiled(model, jit_compile=jit_compile, **options)(
            views, TARGETS, np.array([1, 1, 0, 1])
        )
        self.assert_same((norms, values), (expected.norms, [np.asarray(value) for value in expected.values]))
        np.testing.assert_allclose(losses, expected.losses)
        np.testing.assert_allclose(predictions, expected.predictions)

    def test_views_of_an_unknown_number_of_examples(self):
        model = convolutional()
        views = RNG.normal(size=(4, 2, 6, 6, 2))
        views[2] = np.nan
        clip = clipping.flat(BOUND)
        expected = vectorized.clipped_sum(model, oracles.squared_error, views, TARGETS, clip=clip, views=2)
        specs = [tf.TensorSpec([None, *array.shape[1:]], tf.float64) for array in (views, TARGETS)]
        step = compiled(model, views=2).get_concrete_function(*specs)
        norms, values, _, _ = step(tf.constant(views), tf.constant(TARGETS))
        self.assertFalse(np.isfinite(norms[2]))
        others = np.array([0, 1, 3])
        self.assert_same(
            (np.asarray(norms)[others], values),
            (np.asarray(expected.norms)[others], [np.asarray(value) for value in expected.values]),
        )

    def test_norms_factors_and_sums_are_float32_under_bfloat16(self):
        exact, model, seen = convolutional(), convolutional("mixed_bfloat16"), []
        model.set_weights(exact.get_weights())

        def clip(norms):
            seen.append(norms.dtype)
            return clipping.flat(BOUND)(norms)

        norms, values, _, _ = compiled(model, clip=clip)(IMAGES.astype(np.float32), TARGETS.astype(np.float32))
        self.assertEqual({norms.dtype, *seen, *(value.dtype for value in values)}, {tf.float32})
        np.testing.assert_allclose(
            norms, oracles.clipped_sum(exact, oracles.squared_error, IMAGES, TARGETS, BOUND)[0], rtol=0.05
        )
        # Norms are those of what is summed: with one example the sum is the clipped gradient itself.
        norm, values, _, _ = compiled(model)(IMAGES[:1].astype(np.float32), TARGETS[:1].astype(np.float32))
        length = np.sqrt(sum(np.sum(np.square(value)) for value in values))
        np.testing.assert_allclose(length, min(BOUND, norm[0]), rtol=1e-5)

    def test_two_replicas_add_up_to_one(self):
        strategy = distribution.make_strategy("mirrored")
        with strategy.scope():
            model = convolutional()
        expected = oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        halves = [
            (tf.constant(IMAGES[:2]), tf.constant(TARGETS[:2])),
            (tf.constant(IMAGES[2:]), tf.constant(TARGETS[2:])),
        ]

        @tf.function(autograph=False)
        def step():
            def replica(x, y):
                result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
                return result.norms, [strategy_sum(value) for value in result.values]

            def strategy_sum(value):
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

            mine = [
                strategy.experimental_distribute_values_from_function(
                    lambda context, i=i: halves[context.replica_id_in_sync_group][i]
                )
                for i in range(2)
            ]
            return strategy.run(replica, args=tuple(mine))

        norms, values = step()
        norms = np.concatenate([np.asarray(norm) for norm in strategy.experimental_local_results(norms)])
        values = [strategy.experimental_local_results(value)[0] for value in values]
        self.assert_same((norms, values), expected)

    def test_accelerators_get_no_loop_over_examples(self):
        for model, images in (
            (convolutional(), IMAGES),
            (
                models.nf_resnet("nf_resnet_tiny", 2, pixel_range=None, seed=0, dtype="float64"),
                RNG.normal(size=(4, 8, 8, 1)),
            ),
        ):
            step = compiled(model, jit_compile=True)
            text = step.experimental_get_compiler_ir(images, TARGETS)(stage="hlo")
            self.assertNotIn("while(", text)
            repeated = np.concatenate([images] * 4), np.concatenate([TARGETS] * 4)
            longer = step.experimental_get_compiler_ir(*repeated)(stage="hlo")
            self.assertEqual(text.count(" convolution("), longer.count(" convolution("))
            self.assertEqual(text.count(" dot("), longer.count(" dot("))

    def test_the_backward_pass_waits_for_a_layers_norm(self):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((16, 16, 8), dtype="float64")
        x = inputs
        for name in ("first", "second"):
            x = L.Conv2D(8, 3, padding="same", dtype="float64", name=name)(x)
        model = keras.Model(inputs, L.GlobalAveragePooling2D(dtype="float64")(x))
        step = compiled(model).get_concrete_function(RNG.normal(size=(4, 16, 16, 8)), RNG.normal(size=(4, 8)))
        operations = step.graph.get_operations()
        (onward,) = [op for op in operations if op.type == "Conv2DBackpropInput"]
        before, waiting = set(), [onward]
        while waiting:
            op = waiting.pop()
            if op.name not in before:
                before.add(op.name)
                waiting.extend([*op.control_inputs, *(tensor.op for tensor in op.inputs)])
        formed = [op.name in before for op in operations if op.type in ("While", "StatelessWhile", "BatchMatMulV2")]
        self.assertIn(True, formed)
        self.assertIn(False, formed)

    def test_layers_are_as_before_even_after_an_error(self):
        model = convolutional()
        before = model(IMAGES).numpy()

        def failing(y, predictions):
            raise RuntimeError("no loss")

        with self.assertRaisesRegex(RuntimeError, "no loss"):
            book_keeping.clipped_sum(model, failing, IMAGES, TARGETS, clip=clipping.flat(BOUND))
        self.assertFalse([layer.name for layer in model.layers if "call" in vars(layer)])
        np.testing.assert_array_equal(model(IMAGES), before)
        cloned = keras.models.clone_model(model)
        cloned.set_weights(model.get_weights())
        np.testing.assert_allclose(cloned(IMAGES), before)

    def test_another_thread_sees_the_usual_layers_during_a_trace(self):
        model = convolutional()
        expected, found = model(IMAGES).numpy(), []

        def loss(y, predictions):
            thread = threading.Thread(target=lambda: found.append(model(IMAGES).numpy()))
            thread.start()
            thread.join()
            return oracles.squared_error(y, predictions)

        result = book_keeping.clipped_sum(model, loss, IMAGES, TARGETS, clip=clipping.flat(BOUND))
        np.testing.assert_array_equal(found[0], expected)
        self.assert_same(
            (result.norms, result.values), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        )

    def test_traces_may_overlap(self):
        model = convolutional()
        clip, inner = clipping.flat(BOUND), []

        def loss(y, predictions):
            if not inner:
                inner.append(None)
                inner[0] = book_keeping.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, clip=clip)
            return oracles.squared_error(y, predictions)

        outer = book_keeping.clipped_sum(model, loss, IMAGES, TARGETS, clip=clip)
        for result in (outer, inner[0]):
            self.assert_same(
                (result.norms, result.values), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
            )
        self.assertFalse([layer.name for layer in model.layers if "call" in vars(layer)])

    def test_refuses_a_layer_without_a_rule_by_name(self):
        inputs = keras.Input((5, 3), dtype="float64")
        x = L.RNN([L.LSTMCell(2, dtype="float64")], dtype="float64")(inputs)
        model = keras.Model(inputs, L.Dense(2, dtype="float64")(x))
        with self.assertRaisesRegex(layer_rules.NoRuleError, r"\(LSTMCell\).* no rule") as caught:
            book_keeping.clipped_sum(
                model, oracles.squared_error, RNG.normal(size=(4, 5, 3)), TARGETS, clip=clipping.flat(BOUND)
            )
        self.assertIn(caught.exception.layer_name, [layer.name for layer in model._flatten_layers()])
        self.assertIn(caught.exception.class_name, str(caught.exception))

    def test_refuses_a_weight_that_the_rule_would_not_see(self):
        class Tied(keras.Model):
            def __init__(self):
                super().__init__(dtype="float64")
                self.embedding, self.dense = L.Dense(3, dtype="float64"), L.Dense(2, dtype="float64")

            def call(self, inputs):
                hidden = self.embedding(inputs)
                return self.dense(keras.ops.matmul(hidden, keras.ops.transpose(self.embedding.kernel)))

        model = Tied()
        data = RNG.normal(size=(4, 3))
        model(data)
        with self.assertRaisesRegex(layer_rules.NoRuleError, "also used outside"):
            compiled(model)(data, TARGETS)

    def test_refuses_a_layer_called_in_a_loop_or_on_other_rows(self):
        class Looping(keras.Model):
            def __init__(self, rows):
                super().__init__(dtype="float64")
                self.dense, self.rows = L.Dense(2, dtype="float64"), rows

            def call(self, inputs):
                if self.rows:
                    return tf.reshape(self.dense(tf.reshape(inputs, [-1, 1])), [-1, 4])[:, :2]
                return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, self.dense(h)), (0, inputs))[1]

        data = RNG.normal(size=(4, 2))
        for rows, reason in ((False, "loop"), (True, "rows")):
            model = Looping(rows)
            model(data)
            with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
                compiled(model)(data, TARGETS)

    @parameterized.parameters("by_copies", "by_hand")
    def test_a_user_registers_a_rule_in_a_few_lines(self, way):
        if way == "by_copies":
            rule = layer_rules.scale.rule(lambda layer, inputs, weights: inputs * weights["gain"][:, None, None])
        else:

            def forward(tape, layer, inputs):
                outputs = inputs * layer_rules.constant(layer.gain)
                return layer_rules.Traced(outputs=outputs, taps=[outputs], saved=inputs)

            def gradients(layer, calls, microbatch):
                per_example = tf.add_n([microbatch.sum_views(call.tap_gradients[0] * call.saved) for call in calls])
                return [layer_rules.kept(layer.gain, tf.reduce_sum(per_example, axis=[1, 2]))]

            rule = layer_rules.Rule(forward=forward, gradients=gradients)
        inputs = keras.Input((6, 6, 2), dtype="float64")
        gain = Gain(dtype="float64")
        x = gain(L.Conv2D(2, 3, padding="same", activation="tanh", dtype="float64")(gain(inputs)))
        model = scattered(keras.Model(inputs, L.Dense(2, dtype="float64")(L.Flatten(dtype="float64")(x))))
        layer_rules.register(Gain, rule)
        self.assert_same(
            compiled(model)(IMAGES, TARGETS), oracles.clipped_sum(model, oracles.squared_error, IMAGES, TARGETS, BOUND)
        )

    @parameterized.parameters(False, True)
    def test_a_rule_must_give_one_norm_per_example(self, known):
        def forward(tape, layer, inputs):
            outputs = inputs * layer_rules.constant(layer.gain)
            return layer_rules.Traced(outputs=outputs, taps=[outputs], saved=inputs)

        def gradients(layer, calls, microbatch):
            # Forgets to sum over an example's positions.
            rows = tf.reshape(calls[0].tap_gradients[0] * calls[0].saved, [-1, layer.gain.shape[0]])
            return [
                layer_rules.Contribution(
                    weights=[layer.gain],
                    squared_norms=tf.reduce_sum(tf.square(rows), axis=1),
                    tensors=[rows],
                    sums=lambda factors, tensors: [tf.linalg.matvec(tensors[0], factors, transpose_a=True)],
                )
            ]

        inputs = keras.Input((6, 6, 2), dtype="float64")
        model = keras.Model(inputs, L.Flatten(dtype="float64")(Gain(name="mine", dtype="float64")(inputs))[:, :2])
        layer_rules.register(Gain, layer_rules.Rule(forward=forward, gradients=gradients))
        specs = [tf.TensorSpec([4 if known else None, *array.shape[1:]], tf.float64) for array in (IMAGES, TARGETS)]
        if known:
            with self.assertRaisesRegex(layer_rules.NoRuleError, r"'mine'.* squared norms of shape \(144,\) for 4"):
                compiled(model).get_concrete_function(*specs)
        else:
            step = compiled(model).get_concrete_function(*specs)
            with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "one squared norm per example.*mine"):
                step(tf.constant(IMAGES), tf.constant(TARGETS))
            with self.assertRaises(tf.errors.InvalidArgumentError):
                compiled(model, jit_compile=True).get_concrete_function(*specs)(
                    tf.constant(IMAGES), tf.constant(TARGETS)
                )

    def test_register_takes_classes_of_layers_only(self):
        with self.assertRaisesRegex(ValueError, "`layer_class` must be a subclass"):
            layer_rules.register(tf.Module, layer_rules.rule_for(L.Dense(2)))


ACTIVATIONS = st.sampled_from(["relu", "tanh", None])
BLOCKS = st.one_of(
    st.tuples(
        st.just("conv"), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]), st.sampled_from([2, 4]), ACTIVATIONS
    ),
    st.tuples(
        st.just("standardized"), st.sampled_from([2, 3]), st.sampled_from([1, 2]), st.sampled_from([2, 4]), ACTIVATIONS
    ),
    st.tuples(st.just("depthwise"), st.sampled_from([2, 3]), st.just(1), st.sampled_from([1, 2]), ACTIVATIONS),
    st.tuples(st.just("norm"), st.sampled_from([1, 2]), st.just(1), st.just(0), ACTIVATIONS),
    st.tuples(st.just("dense"), st.just(1), st.just(1), st.sampled_from([2, 4]), ACTIVATIONS),
    st.tuples(st.just("residual"), st.sampled_from([1, 3]), st.just(1), st.just(0), ACTIVATIONS),
)


def random_network(blocks, dtype):
    inputs = keras.Input((5, 6, 2), dtype="float64")
    x = inputs
    for kind, size, stride, width, activation in blocks:
        options = {"padding": "same", "dtype": dtype}
        if kind == "conv":
            x = L.Conv2D(width, size, strides=stride, **options)(x)
        elif kind == "standardized":
            x = normalizer_free.WeightStandardizedConv2D(width, size, strides=stride, **options)(x)
        elif kind == "depthwise":
            x = L.DepthwiseConv2D(size, depth_multiplier=width, **options)(x)
        elif kind == "norm":
            x = L.GroupNormalization(size, dtype=dtype)(x)
        elif kind == "dense":
            x = L.Dense(width, dtype=dtype)(x)
        else:
            branch = L.Conv2D(x.shape[-1], size, **options)(x)
            x = L.Add(dtype=dtype)([x, normalizer_free.SkipGain(0.7, dtype=dtype)(branch)])
        x = L.Activation(activation or "linear", dtype=dtype)(x)
    return keras.Model(inputs, L.Dense(2, dtype=dtype)(L.Flatten(dtype=dtype)(x)))


class RandomNetworksTest(absltest.TestCase):
    @hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.lists(BLOCKS, min_size=1, max_size=4), st.integers(1, 3))
    def test_equals_float64_loop_in_float32(self, blocks, examples):
        keras.utils.set_random_seed(1)
        exact, single = scattered(random_network(blocks, "float64")), random_network(blocks, "float32")
        single.set_weights(exact.get_weights())
        exact.set_weights(single.get_weights())
        x = np.random.default_rng(1).normal(size=(examples, 5, 6, 2)).astype(np.float32)
        y = TARGETS[:examples]
        found = book_keeping.clipped_sum(
            single, oracles.squared_error, x, tf.constant(y, tf.float32), clip=clipping.flat(BOUND)
        )
        norms, sums = oracles.clipped_sum(exact, oracles.squared_error, x, y, BOUND)
        np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
        size = np.sqrt(sum(np.sum(total**2) for total in sums))
        for value, total in zip(found.values, sums, strict=True):
            self.assertLess(np.linalg.norm(value - total), 1e-5 * np.linalg.norm(total) + 1e-6 * size)
        keras.backend.clear_session()
        gc.collect()


class FreedTest(absltest.TestCase):
    def test_gradients_that_branches_share_are_freed(self):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, L.Add()([L.Dense(7, name="left")(inputs), L.Dense(7, name="right")(inputs)]))
        x, y = tf.ones([5, 3]), tf.zeros([5, 7])
        for _ in range(2):
            # The first call tries the model as well, on three examples.
            book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND))
        # What is left is y.
        self.assertEqual((tensors_of((5, 7)), tensors_of((3, 7))), (1, 0))


if __name__ == "__main__":
    absltest.main()
