import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping, vectorized
from tests import oracles

L = keras.layers
BOUND, IMAGE = 0.1, (5, 6, 3)

# The inputs' shape, then the layer; ids for an embedding.
CASES = {
    "dense": ((4,), lambda: L.Dense(3, activation="tanh")),
    "dense_positions": ((5, 4), lambda: L.Dense(3, activation="tanh")),
    "einsum": ((5, 4), lambda: L.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de")),
    "einsum_attention": ((5, 2, 3), lambda: L.EinsumDense("abcd,cde->abe", (5, 4), bias_axes="e")),
    "einsum_contracted": ((5, 4), lambda: L.EinsumDense("abc,dc->abd", (5, 3))),
    "einsum_shared": ((5, 4), lambda: L.EinsumDense("abc,dc->abdc", (5, 3, 4))),
    "einsum_ellipsis": ((2, 5, 4), lambda: L.EinsumDense("...x,xy->...y", 3, bias_axes="y")),
    "embedding": ((6,), lambda: L.Embedding(5, 3)),
    "conv1d": ((7, 3), lambda: L.Conv1D(4, 3, strides=2, padding="causal")),
    "conv2d": (IMAGE, lambda: L.Conv2D(4, 3, strides=2, padding="same", activation="tanh")),
    "conv2d_dilation": (IMAGE, lambda: L.Conv2D(4, 2, dilation_rate=2, use_bias=False)),
    "conv3d": ((3, 4, 3, 2), lambda: L.Conv3D(2, 2)),
}


def network(case, *, alpha=3, rank=2):
    """The layer with LoRA enabled, between a trained layer and a head, where its inputs are no ids."""
    shape, make = CASES[case]
    keras.utils.set_random_seed(1)
    ids = case == "embedding"
    inputs = keras.Input(shape, dtype="int32" if ids else "float32")
    layer = make()
    x = inputs if ids else L.Dense(shape[-1])(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(layer(x))))
    layer.enable_lora(rank, lora_alpha=alpha)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight.numpy() + 0.3 * generator.normal(size=weight.shape))
    return model, layer


def data(case, examples, *views):
    generator = np.random.default_rng(2)
    shape = (examples, *views, *CASES[case][0])
    x = generator.integers(0, 5, shape) if case == "embedding" else generator.normal(size=shape).astype(np.float32)
    return x, generator.normal(size=(examples, 2)).astype(np.float32)


def compiled(model, views=1, **options):
    def step(x, y):
        clip = clipping.flat(BOUND)
        result = book_keeping.clipped_sum(model, oracles.squared_error, x, y, clip=clip, views=views)
        return result.norms, result.values

    return tf.function(step, autograph=False, **options)


class LoraTest(parameterized.TestCase):
    def assert_equal_to_loop(self, model, x, y, **options):
        expected = oracles.clipped_sum(model, oracles.squared_error, x, y, BOUND)
        self.assertLess(max(oracles.relative_errors(compiled(model, **options)(x, y), expected)), 2e-5)

    @parameterized.parameters(*CASES)
    def test_equals_the_loop(self, case):
        model, layer = network(case)
        trained = {weight.name for weight in layer.trainable_weights}
        self.assertEqual(trained - {"bias"}, {weight.name for weight in layer.weights if "lora" in weight.name})
        for examples in (1, 3, 8) if case == "dense" else (3,):
            self.assert_equal_to_loop(model, *data(case, examples))

    @parameterized.parameters("dense_positions", "einsum_attention", "embedding", "conv2d")
    def test_the_kernel_trained_beside_it_and_one_matrix_frozen(self, case):
        for unfrozen, frozen in (("kernel", ()), ("embeddings", ()), (None, ("a",)), (None, ("b", "bias"))):
            model, layer = network(case)
            for weight in layer.weights:
                if weight.name == unfrozen:
                    weight.trainable = True
                if weight.name.endswith(frozen):
                    weight.trainable = False
            self.assert_equal_to_loop(model, *data(case, 3))

    @parameterized.parameters("einsum", "embedding", "conv2d")
    def test_views(self, case):
        model, _ = network(case)
        x, y = data(case, 3, 2)
        expected = vectorized.clipped_sum(model, oracles.squared_error, x, y, clip=clipping.flat(BOUND), views=2)
        expected = np.asarray(expected.norms), [np.asarray(value) for value in expected.values]
        self.assertLess(max(oracles.relative_errors(compiled(model, views=2)(x, y), expected)), 2e-5)

    def test_xla(self):
        model, _ = network("einsum")
        self.assert_equal_to_loop(model, *data("einsum", 3), jit_compile=True)

    def test_it_may_be_enabled_after_a_first_step(self):
        shape, make = CASES["dense"]
        layer = make()
        model = oracles.model_of(lambda x: L.Dense(2)(layer(x)), shape)
        x, y = data("dense", 3)
        compiled(model)(x, y)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
        self.assert_equal_to_loop(model, x, y)

    def test_the_frozen_kernel_has_no_gradient_of_its_own(self):
        x, y = data("conv2d", 3)
        for trained in (False, True):
            model, layer = network("conv2d")
            layer.weights[0].trainable = trained
            graph = compiled(model).get_concrete_function(x, y).graph
            # Per-example gradients are formed in one product for each offset along the kernel's first axis.
            shapes = {tuple(op.outputs[0].shape) for op in graph.get_operations() if op.type == "BatchMatMulV2"}
            self.assertEqual((3, 3 * 3, 4) in shapes, trained)
            # TensorFlow makes the operation for a frozen kernel too, and drops it where nothing takes its result.
            filters = [op.outputs[0] for op in graph.get_operations() if op.type == "Conv2DBackpropFilter"]
            self.assertNotIn((3, 3, 3, 4), {tuple(one.shape) for one in filters if one.consumers()})

    @parameterized.parameters(
        (lambda: L.Conv2D(4, 3, groups=2), (5, 5, 2), "several groups"),
        (lambda: L.ReversibleEmbedding(5, 3), (4,), "LoRA enabled, for which its class has no rule"),
    )
    def test_what_it_does_not_serve_is_refused_by_name(self, make, shape, reason):
        layer = make()
        layer.build((None, *shape))
        layer.enable_lora(1)
        with self.assertRaisesRegex(layer_rules.NoRuleError, reason):
            layer_rules.rule_for(layer)


if __name__ == "__main__":
    absltest.main()
