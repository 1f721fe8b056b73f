"""Networks that people fine-tune, written as in Keras' examples, and random examples for them.

    text_encoder    text classification: 4 blocks of width 256 with 4 heads, 128 of 8,192 words
    decoder         text generation: the same with causal attention, one prediction per word; an output layer of its own
    decoder_tied    the same, whose outputs are projected onto the embedding's own rows
    vit_tiny        a vision transformer: 12 blocks of width 192 with 3 heads, patches of 4 of images of 32 x 32
    lstm_text       text classification: one LSTM of 128 units on 80 of 10,000 words of width 64
    lora_bert       `text_encoder`'s blocks, normalized first as in BERT, with LoRA of rank 8 on queries and values

    model, x, y = networks.made("lstm_text", batch_size=32, model_class=keras.Model)

Covered by tests/experiments/benchmarks/networks_test.py.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from noisy_sgd import keras_internals, keys
from noisy_sgd.experiments.benchmarks import cases, hub_networks

WORDS, LENGTH, WIDTH, HEADS, BLOCKS = 8192, 128, 256, 4, 4
PATCH, PATCHES, VISION_WIDTH, VISION_HEADS, VISION_BLOCKS = 4, 64, 192, 3, 12
LSTM_WORDS, LSTM_LENGTH, LSTM_WIDTH, LSTM_UNITS = 10_000, 80, 64, 128
LORA_RANK = 8


class TokenAndPositionEmbedding(layers.Layer):
    """The sum of a word's row and its position's; positions have no axis of examples.

    Args:
        tokens: the layer that looks words up.
        length: the number of positions.
        width: of a row.
    """

    def __init__(self, tokens: layers.Layer, length: int, width: int):
        super().__init__()
        self.tokens, self.positions = tokens, layers.Embedding(length, width)

    def build(self, shape):
        """Builds both tables."""
        self.tokens.build(shape)
        self.positions.build(shape[1:])

    def call(self, inputs):
        """[B, T] -> [B, T, width]."""
        return self.tokens(inputs) + self.positions(ops.arange(0, ops.shape(inputs)[-1], 1))


class PatchEncoder(layers.Layer):
    """Projected patches, to which the rows of their positions [1, patches] are added.

    Args:
        patches: their number.
        width: of a row.
    """

    def __init__(self, patches: int, width: int):
        super().__init__()
        self.num_patches = patches
        self.projection, self.positions = layers.Dense(width), layers.Embedding(patches, width)

    def build(self, shape):
        """Builds the projection and the table."""
        self.projection.build(shape)
        self.positions.build((1, self.num_patches))

    def call(self, inputs):
        """[B, patches, channels] -> [B, patches, width]."""
        positions = ops.expand_dims(ops.arange(0, self.num_patches, 1), axis=0)
        return self.projection(inputs) + self.positions(positions)


def made(workload: str, batch_size: int, model_class: type[keras.Model]) -> tuple[keras.Model, Any, np.ndarray]:
    """The network, and one batch of random examples with random labels.

    Args:
        workload: one of the names above, or of `hub_networks`.
        batch_size: the number of examples.
        model_class: `keras.Model`, or a subclass of it.

    Raises:
        ConfigError: for a workload of KerasHub's where it is not installed.
    """
    keras.utils.set_random_seed(0)
    if workload in cases.KERAS_HUB:
        inputs, outputs, x, classes = hub_networks.parts(workload, batch_size)
    else:
        inputs, outputs, x, classes = _MAKERS[workload](batch_size)
    labels = keys.arbitrary(1).integers(0, classes, (batch_size, *outputs.shape[1:-1])).astype(np.int32)
    model = model_class(inputs, outputs)
    if workload == "lora_bert":
        _adapt(model)
    return model, x, labels


def _adapt(model):
    """Enables LoRA on the queries and values of all attention, and freezes everything else but the last layer."""
    for layer in keras_internals.layers(model, include_self=False):
        if layer.name in ("query", "value"):
            layer.enable_lora(LORA_RANK)
            layer.bias.trainable = False
        elif layer is not model.layers[-1] and not isinstance(layer, layers.MultiHeadAttention):
            layer.trainable = False


def _words(batch_size, count, length):
    return keras.Input((length,), dtype="int32"), keys.arbitrary(0).integers(0, count, (batch_size, length), np.int32)


def _block(x, width, heads, hidden, *, causal=False, first=False):
    """Attention and two Dense layers, each added to its inputs; normalized before (`first`) or after the addition."""
    normalized = layers.LayerNormalization(epsilon=1e-6)(x) if first else x
    attended = layers.MultiHeadAttention(heads, width // heads)(normalized, normalized, use_causal_mask=causal)
    x = x + attended
    normalized = layers.LayerNormalization(epsilon=1e-6)(x)
    x = x if first else normalized
    fed = layers.Dense(width)(layers.Dense(hidden, activation="gelu")(normalized))
    return x + fed if first else layers.LayerNormalization(epsilon=1e-6)(x + fed)


def _text_encoder(batch_size, first=False):
    inputs, ids = _words(batch_size, WORDS, LENGTH)
    x = TokenAndPositionEmbedding(layers.Embedding(WORDS, WIDTH), LENGTH, WIDTH)(inputs)
    for _ in range(BLOCKS):
        x = _block(x, WIDTH, HEADS, 4 * WIDTH, first=first)
    x = layers.GlobalAveragePooling1D()(x)
    return inputs, layers.Dense(2)(x), ids, 2


def _decoder(batch_size, tied=False):
    inputs, ids = _words(batch_size, WORDS, LENGTH)
    words = layers.ReversibleEmbedding(WORDS, WIDTH) if tied else layers.Embedding(WORDS, WIDTH)
    x = TokenAndPositionEmbedding(words, LENGTH, WIDTH)(inputs)
    for _ in range(BLOCKS):
        x = _block(x, WIDTH, HEADS, 4 * WIDTH, causal=True)
    outputs = words(x, reverse=True) if tied else layers.Dense(WORDS)(x)
    return inputs, outputs, ids, WORDS


def _vit_tiny(batch_size):
    side = PATCH * int(PATCHES**0.5)
    images = keys.arbitrary(0).uniform(size=(batch_size, side, side, 3)).astype(np.float32)
    inputs = keras.Input((side, side, 3))
    patches = layers.Reshape((PATCHES, 3 * PATCH**2))(ops.image.extract_patches(inputs, PATCH))
    x = PatchEncoder(PATCHES, VISION_WIDTH)(patches)
    for _ in range(VISION_BLOCKS):
        x = _block(x, VISION_WIDTH, VISION_HEADS, 4 * VISION_WIDTH, first=True)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    return inputs, layers.Dense(10)(x), images, 10


def _lstm_text(batch_size):
    inputs, ids = _words(batch_size, LSTM_WORDS, LSTM_LENGTH)
    x = layers.Embedding(LSTM_WORDS, LSTM_WIDTH)(inputs)
    return inputs, layers.Dense(2)(layers.LSTM(LSTM_UNITS)(x)), ids, 2


_MAKERS = {
    "text_encoder": _text_encoder,
    "decoder": _decoder,
    "decoder_tied": lambda batch_size: _decoder(batch_size, tied=True),
    "vit_tiny": _vit_tiny,
    "lstm_text": _lstm_text,
    "lora_bert": lambda batch_size: _text_encoder(batch_size, first=True),
}
