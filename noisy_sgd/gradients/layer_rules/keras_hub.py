"""KerasHub's own layers, by the names of their classes: this package does not need KerasHub.

Its transformers are made of Keras' Dense, EinsumDense, Embedding and normalizations, and of these: normalizations and
scales of KerasHub, embeddings of positions, tokens that are put before the patches of an image, and the bias of T5's
attention, which has a number for each head and range of distances.

Seen in KerasHub 0.32. Covered by tests/gradients/layer_rules/keras_hub_test.py.
"""

import math

import tensorflow as tf
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import scale
from noisy_sgd.gradients.layer_rules.shared import contributions, registry

# Every one multiplies its inputs, normalized or not, by one factor per channel.
SCALES = (
    "DINOV2LayerScale",
    "DINOV3LayerScale",
    "Gemma3nRMSNorm",
    "GptOssLayerNormalization",
    "LayerScale2d",
    "LlamaLayerNorm",
    "MistralLayerNormalization",
    "MixtralLayerNormalization",
    "Phi3LayerNorm",
    "Qwen3LayerNorm",
    "Qwen3MoeLayerNorm",
    "Qwen3_5LayerNorm",
    "QwenLayerNorm",
    "QwenMoeLayerNorm",
    "RMSNormalization",
    "RoformerNorm",
    "T5LayerNorm",
)


def positions_forward(tape, layer, inputs, start_index=0, positions=None):
    if positions is not None or not isinstance(start_index, int) or None in inputs.shape[1:]:
        raise registry.NoRuleError(layer, "it is called with positions of its own, or on a length that is not known")
    length = inputs.shape[-2]
    if inputs.shape.rank != 3 or start_index + length > layer.sequence_length:
        raise registry.NoRuleError(layer, f"it is called on inputs of shape {inputs.shape}")
    rows = registry.constant(layer.position_embeddings)[start_index : start_index + length]
    outputs = ops.broadcast_to(rows, ops.shape(inputs))
    return registry.Traced(outputs=outputs, taps=[outputs], saved=start_index)


def positions_gradients(layer, calls, microbatch):
    table, width = layer.position_embeddings, layer.position_embeddings.shape[-1]
    first = min(call.saved for call in calls)
    last = max(call.saved + call.tap_gradients[0].shape[1] for call in calls)

    def at(call):
        """The gradients at the rows from the first to the last that any call takes."""
        slope = microbatch.sum_views(call.tap_gradients[0])
        margins = [call.saved - first, last - call.saved - slope.shape[1]]
        return slope if margins == [0, 0] else tf.pad(slope, [[0, 0], margins, [0, 0]])

    def arrange(pieces):
        rows = tf.reshape(pieces[0], [last - first, width])
        return tf.pad(rows, [[first, table.shape[0] - last], [0, 0]])

    rows = tf.add_n([at(call) for call in calls])
    return [contributions.kept_rows(table, [tf.reshape(rows, [-1, math.prod(rows.shape[1:])])], arrange)]


def patches_forward(layer, inputs, weights):
    patches = layer.patch_embedding(inputs)
    if layer.data_format == "channels_first":
        patches = ops.transpose(patches, (0, 2, 3, 1))
    patches = ops.reshape(patches, (ops.shape(patches)[0], -1, layer.hidden_dim))
    if layer.use_class_token:
        token = ops.cast(ops.reshape(weights["class_token"], (-1, 1, layer.hidden_dim)), patches.dtype)
        patches = ops.concatenate([token, patches], axis=1)
    return ops.add(patches, layer.position_embedding(layer.position_ids))


class _Biased:
    """A T5MultiHeadAttention whose position bias is another one."""

    def __init__(self, layer, compute_bias):
        self._layer, self.compute_bias = layer, compute_bias

    def __getattr__(self, name):
        return getattr(self._layer, name)


def t5_attention_forward(layer, *args, **kwargs):
    *args, weights = args
    # [examples, buckets, heads] -> [buckets, examples * heads]
    copies = tf.transpose(weights["embeddings"], [1, 0, 2])
    table = tf.reshape(copies, [layer.relative_attention_buckets, -1])

    def compute_bias(*lengths, **start):
        with keras_internals.read_as(layer, [(layer.relative_attention_bias, table)]):
            bias = layer.compute_bias(*lengths, **start)
        return tf.reshape(bias, [-1, layer.num_heads, *bias.shape[2:]])

    return type(layer).call(_Biased(layer, compute_bias), *args, **kwargs)


registry.register_name("keras_hub", SCALES, scale.rule())
registry.register_name("keras_hub", ["T5MultiHeadAttention"], scale.rule(t5_attention_forward))
registry.register_name(
    "keras_hub",
    ["PositionEmbedding"],
    registry.Rule(forward=positions_forward, gradients=positions_gradients),
)
registry.register_name("keras_hub", ["ViTPatchingAndEmbedding"], scale.rule(patches_forward))
