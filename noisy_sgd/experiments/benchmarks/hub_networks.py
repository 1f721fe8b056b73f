"""Small backbones of KerasHub with random weights, and random examples for them; KerasHub is no dependency.

    hub_bert, hub_gpt2, hub_gemma, hub_llama3    4 blocks of width 256 with 4 heads, 128 of 8,192 words, two classes

    inputs, outputs, x, classes = hub_networks.parts("hub_bert", batch_size=16)

Covered by tests/experiments/benchmarks/hub_networks_test.py.
"""

import keras
import numpy as np

from noisy_sgd import config, keys

WORDS, LENGTH, WIDTH, BLOCKS = 8192, 128, 256, 4
_HEADS, _CLASSES = 4, 2
# Gemma and Llama have half as many heads of keys and values as of queries.
_BACKBONES = {
    "hub_bert": "BertBackbone",
    "hub_gpt2": "GPT2Backbone",
    "hub_gemma": "GemmaBackbone",
    "hub_llama3": "Llama3Backbone",
}


def parts(workload: str, batch_size: int) -> tuple[dict, keras.KerasTensor, dict[str, np.ndarray], int]:
    """The inputs and outputs of a classifier on the last word, one batch of random examples, and the number of classes.

    Args:
        workload: one of the names above.
        batch_size: the number of examples.

    Raises:
        ConfigError: if KerasHub is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        config.require(False, "workload", f"needs KerasHub ({error})", workload, "pip install keras-hub")
    sizes = {
        "vocabulary_size": WORDS, "num_layers": BLOCKS, "hidden_dim": WIDTH, "intermediate_dim": 4 * WIDTH
    }  # fmt: skip
    if workload in ("hub_bert", "hub_gpt2"):
        sizes |= {"num_heads": _HEADS, "max_sequence_length": LENGTH, "dropout": 0.0}
    else:
        sizes |= {"num_query_heads": _HEADS, "num_key_value_heads": _HEADS // 2}
    if workload == "hub_gemma":
        sizes["head_dim"] = WIDTH // _HEADS
    backbone = getattr(keras_hub.models, _BACKBONES[workload])(**sizes)
    words = backbone.output["sequence_output"] if isinstance(backbone.output, dict) else backbone.output
    shape = (batch_size, LENGTH)
    x = {
        "token_ids": keys.arbitrary(0).integers(0, WORDS, shape, np.int32),
        "padding_mask": np.ones(shape, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
    }
    x = {name: x[name] for name in backbone.input}
    return backbone.input, keras.layers.Dense(_CLASSES)(words[:, -1]), x, _CLASSES
