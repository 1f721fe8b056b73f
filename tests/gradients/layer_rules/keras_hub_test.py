"""KerasHub's layers where it is installed, and stand-ins for two of them, which have their names, everywhere."""

import importlib.util
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import ops

from noisy_sgd.gradients import clipping, layer_rules
from noisy_sgd.gradients.engines import book_keeping
from tests import oracles

L = keras.layers
BOUND, WORDS, LENGTH = 0.05, 13, 6
SMALL = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 8}
HEADS = {"num_heads": 2, "dropout": 0.0, "max_sequence_length": 8}
GROUPED = {"num_query_heads": 2, "num_key_value_heads": 1}
BACKBONES = {
    "BertBackbone": {**SMALL, **HEADS},
    "DistilBertBackbone": {**SMALL, **HEADS},
    "GPT2Backbone": {**SMALL, **HEADS},
    "GemmaBackbone": {**SMALL, **GROUPED, "head_dim": 4},
    "Llama3Backbone": {**SMALL, **GROUPED},
    "T5Backbone": {**SMALL, "num_heads": 2, "key_value_dim": 3, "dropout": 0.0},
    "ViTBackbone": {
        "image_shape": (4, 4, 3), "patch_size": 2, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8
    },
}  # fmt: skip
# These compute their normalizations in float32.
SINGLE = ("GemmaBackbone", "Llama3Backbone")


class PositionEmbedding(L.Layer):
    """As KerasHub's layer of that name."""

    def __init__(self, sequence_length, **options):
        super().__init__(**options)
        self.sequence_length = sequence_length

    def build(self, shape):
        self.position_embeddings = self.add_weight(name="embeddings", shape=(self.sequence_length, shape[-1]))

    def call(self, inputs, start_index=0, positions=None):
        rows = ops.convert_to_tensor(self.position_embeddings)[start_index : start_index + inputs.shape[1]]
        return ops.broadcast_to(rows, ops.shape(inputs))


class LlamaLayerNorm(L.Layer):
    """As KerasHub's layer of that name."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


for stand_in in (PositionEmbedding, LlamaLayerNorm):
    stand_in.__module__ = "keras_hub.stand_in"


def loss(y, predictions):
    flat = tf.reshape(tf.cast(predictions, y.dtype), [tf.shape(y)[0], -1])
    return tf.reduce_mean(tf.square(flat - y), axis=1)


class KerasHubTest(parameterized.TestCase):
    def assert_equal_to_loop(self, model, x, rtol):
        rng = np.random.default_rng(3)
        for weight in model.trainable_weights:
            weight.assign(weight.numpy() + 0.1 * rng.normal(size=weight.shape))
        y = rng.normal(size=(3, 1))

        def step(x, y):
            result = book_keeping.clipped_sum(model, loss, x, y, clip=clipping.flat(BOUND))
            return result.norms, result.values

        found = tf.function(step, autograph=False)(x, y)
        self.assertLess(max(oracles.relative_errors(found, oracles.clipped_sum(model, loss, x, y, BOUND))), rtol)

    @parameterized.product(starts=[(0,), (1,), (0, 2)])
    def test_layers_by_the_names_of_their_classes(self, starts):
        inputs = keras.Input((LENGTH, 4), dtype="float64")
        x = L.Dense(4, dtype="float64")(inputs)
        positions = PositionEmbedding(9, dtype="float64")
        for start in starts:
            x = LlamaLayerNorm(dtype="float64")(x + positions(x, start_index=start))
        model = keras.Model(inputs, L.Dense(2, dtype="float64")(x))
        self.assert_equal_to_loop(model, np.random.default_rng(0).normal(size=(3, LENGTH, 4)), 1e-9)

    def test_positions_of_ones_own_are_refused(self):
        inputs = keras.Input((LENGTH, 4), dtype="float64")
        model = keras.Model(inputs, PositionEmbedding(9, dtype="float64")(inputs, positions=np.arange(LENGTH)))
        with self.assertRaisesRegex(layer_rules.NoRuleError, "positions of its own"):
            self.assert_equal_to_loop(model, np.ones((3, LENGTH, 4)), 1e-9)

    def test_another_package_with_such_a_class_has_no_rule(self):
        layer = type("LlamaLayerNorm", (L.Layer,), {"__module__": "elsewhere", "build": LlamaLayerNorm.build})()
        layer.build((1, 2))
        with self.assertRaisesRegex(layer_rules.NoRuleError, "no rule"):
            layer_rules.rule_for(layer)

    @parameterized.parameters(*BACKBONES)
    def test_a_backbone_equals_the_loop(self, name):
        if importlib.util.find_spec("keras_hub") is None:
            self.skipTest("KerasHub is not installed; `pip install keras-hub` has this test run.")
        import keras_hub

        keras.utils.set_random_seed(1)
        # T5 warns that its attention drops the mask of its embeddings.
        self.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        backbone = getattr(keras_hub.models, name)(**BACKBONES[name], dtype="float64")
        output = backbone.output
        if isinstance(output, dict):
            output = output["decoder_sequence_output" if name == "T5Backbone" else "sequence_output"]
        model = keras.Model(backbone.input, L.Dense(2, dtype="float64")(output))
        rng = np.random.default_rng(0)
        if name == "ViTBackbone":
            x = rng.normal(size=(3, 4, 4, 3))
        else:
            lengths = np.array([LENGTH, 3, 1])[:, None]
            x = {key: rng.integers(1, WORDS, (3, LENGTH)) for key in backbone.input}
            for key in [key for key in x if key.endswith("padding_mask")]:
                x[key] = (np.arange(LENGTH) < lengths).astype(np.int32)
            if "segment_ids" in x:
                x["segment_ids"] = x["segment_ids"] % 2
        self.assert_equal_to_loop(model, x, 1e-6 if name in SINGLE else 1e-9)


if __name__ == "__main__":
    absltest.main()
