import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping, vectorized
from noisy_sgd.gradients.layer_rules.shared import devices
from tests import oracles
from tests.gradients.layer_rules.rules_test import preferring

L = keras.layers
BOUND, WORDS, WIDTH, LENGTH = 0.3, 7, 3, 5
ROUTES = ("per_example", "formed_twice", "gram")


def network(dtype="float64", *, lookups=1, projections=1, **options):
    """Words or hidden states in, logits or states out; ids repeat, and 0 is padding."""
    keras.utils.set_random_seed(1)
    layer = L.ReversibleEmbedding(WORDS, WIDTH, dtype=dtype, **options)
    layer.build()
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = L.Dense(WIDTH, activation="tanh", dtype=dtype)(ids_as_numbers(inputs, dtype))
    for _ in range(lookups):
        x = L.LayerNormalization(dtype=dtype)(L.Add(dtype=dtype)([x, layer(inputs)]))
    x = L.Dense(WIDTH, activation="tanh", dtype=dtype)(x)
    outputs = [layer(x if n == 0 else x[:, :2], reverse=True) for n in range(projections)] or [x]
    model = keras.Model(inputs, [L.Flatten(dtype=dtype)(output) for output in outputs])
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + 0.3 * rng.normal(size=weight.shape))
    return model, layer


def ids_as_numbers(inputs, dtype):
    return keras.ops.cast(keras.ops.expand_dims(inputs, -1), "float64")


def loss(y, outputs):
    return tf.add_n([tf.reduce_mean(tf.square(tf.cast(one, y.dtype) - y), axis=1) for one in tf.nest.flatten(outputs)])


def data(examples, *views):
    rng = np.random.default_rng(3)
    x = rng.integers(0, WORDS, (examples, *views, LENGTH)).astype(np.int32)
    x[0, ..., 2:] = 0
    return x, rng.normal(size=(examples, 1))


def summed(model, x, y, device="cpu", **options):
    with absltest.mock.patch.object(devices, "kind", lambda: device):
        result = book_keeping.clipped_sum(model, loss, x, y, clip=clipping.flat(BOUND), **options)
    return result.norms, result.values


class ReversibleEmbeddingTest(parameterized.TestCase):
    @parameterized.parameters(
        {}, {"lookups": 2, "projections": 2}, {"lookups": 0}, {"projections": 0}, {"tie_weights": False}
    )
    def test_equals_the_loop_by_every_route(self, **options):
        model, _ = network(**options)
        x, y = data(3)
        expected = oracles.clipped_sum(model, loss, x, y, BOUND)
        for route in ROUTES:
            for device in ("cpu", "accelerator"):
                with (
                    self.subTest(route=route, device=device),
                    absltest.mock.patch.object(layer_rules, "choose", preferring(route)),
                ):
                    self.assertLess(max(oracles.relative_errors(summed(model, x, y, device), expected)), 1e-9)

    @parameterized.parameters(
        {"mask_zero": True}, {"logit_soft_cap": 0.5}, {"reverse_dtype": "float32"}, {"tie_weights": False}
    )
    def test_every_option_and_views(self, **options):
        model, _ = network(**options)
        x, y = data(3, 2)
        expected = vectorized.clipped_sum(model, loss, x, y, clip=clipping.flat(BOUND), views=2)
        expected = np.asarray(expected.norms), [np.asarray(value) for value in expected.values]
        error = max(oracles.relative_errors(summed(model, x, y, views=2), expected))
        self.assertLess(error, 1e-5 if "reverse_dtype" in options else 1e-9)

    @parameterized.parameters((True, "embeddings"), (False, "embeddings"), (False, "reverse_embeddings"))
    def test_a_frozen_table(self, tied, frozen):
        model, layer = network(tie_weights=tied)
        getattr(layer, frozen).trainable = False
        x, y = data(3)
        self.assertLess(
            max(oracles.relative_errors(summed(model, x, y), oracles.clipped_sum(model, loss, x, y, BOUND))), 1e-9
        )

    @parameterized.parameters(*ROUTES)
    def test_ids_outside_the_table_reach_no_other_example_and_no_sum(self, route):
        layer = L.ReversibleEmbedding(WORDS, WIDTH)
        layer.build()
        rng = np.random.default_rng(0)
        rows, h, dz = (tf.constant(rng.normal(size=(2, 3, width)), tf.float32) for width in (WIDTH, WIDTH, WORDS))
        calls = [
            layer_rules.Call(saved={"ids": tf.constant([[0, WORDS, -1], [0, 1, 2]])}, tap_gradients=[rows]),
            layer_rules.Call(saved={"inputs": h}, tap_gradients=[dz]),
        ]
        microbatch = layer_rules.Microbatch(units=2, views=1, device="accelerator", dtype=tf.float32)
        (routes,) = layer_rules.rule_for(layer).gradients(layer, calls, microbatch)
        group = next(one for one in routes if one.name == route).build()
        expected = np.einsum("utv,utw->uvw", dz, h)
        expected[0, 0] += rows[0, 0]
        expected[1, :3] += rows[1]
        np.testing.assert_allclose(group.squared_norms, np.square(expected).sum((1, 2)), rtol=1e-5)
        for example, factors in enumerate(np.eye(2, dtype=np.float32)):
            (total,) = group.sums(tf.constant(factors), group.tensors)
            np.testing.assert_allclose(total, expected[example], rtol=1e-5, atol=1e-5)

    @parameterized.product(route=ROUTES, device=["cpu", "accelerator"])
    def test_no_clipped_gradient_is_longer_than_its_bound_where_both_uses_cancel(self, route, device):
        # At every position the gradient at the projected row is opposite to that at the row that was looked up.
        layer = L.ReversibleEmbedding(2, 2)
        layer.build()
        rule = layer_rules.rule_for(layer)
        count, scale = 64, np.float32(1e3)
        rng = np.random.default_rng(0)
        h = np.tile(rng.normal(size=(1, 1, 2)).astype(np.float32), (1, count, 1))
        dz = np.zeros((1, count, 2), np.float32)
        dz[..., 1] = scale * rng.normal(size=(1, count))
        rows = -dz[..., 1:] * h + 1e-4 * rng.normal(size=(1, count, 2)).astype(np.float32)
        calls = [
            layer_rules.Call(saved={"ids": tf.ones([1, count], tf.int32)}, tap_gradients=[tf.constant(rows)]),
            layer_rules.Call(saved={"inputs": tf.constant(h)}, tap_gradients=[tf.constant(dz)]),
        ]
        microbatch = layer_rules.Microbatch(units=1, views=1, device=device, dtype=tf.float32)
        (routes,) = rule.gradients(layer, calls, microbatch)
        group = next(one for one in routes if one.name == route).build()
        norm = np.sqrt(group.squared_norms)
        (total,) = group.sums(tf.constant(1 / norm), group.tensors)
        self.assertLess(np.linalg.norm(np.asarray(total, np.float64)), 1 + 1e-4)
        if device == "cpu":
            self.assertGreater(np.linalg.norm(np.asarray(total, np.float64)), 1 - 1e-4)


if __name__ == "__main__":
    absltest.main()
