"""LoRA (Hu et al. 2021): W + s A B in place of a frozen kernel W, s = alpha / rank, with gradients of A and B alone.

A and B are small. So where the layer is a matrix product, each example runs with a copy of both, beside the product
with W, and the backward pass goes to the copies (see `scale`). W itself is neither copied nor has a norm formed.

Covered by tests/gradients/layer_rules/lora_test.py.
"""

import keras
import tensorflow as tf

from noisy_sgd.gradients.layer_rules import scale as scales
from noisy_sgd.gradients.layer_rules.shared import contributions


def matrices(layer) -> tuple:
    """The variables A and B of a layer with LoRA enabled."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.lora_embeddings_a, layer.lora_embeddings_b
    return layer.lora_kernel_a, layer.lora_kernel_b


def scale(layer) -> float:
    """s."""
    return layer.lora_alpha / layer.lora_rank


def copies(tape, layer, inputs) -> list[tf.Tensor]:
    """A and B, one copy of each per example, [examples, *shape], watched."""
    examples = tf.shape(inputs)[0] if inputs.shape[0] is None else inputs.shape[0]
    return scales.copies(tape, matrices(layer), examples)


def product(layer, inputs, copies, names) -> tf.Tensor:
    """s times the product of inputs [examples, ...] and A B, from copies.

    Args:
        layer: the layer.
        inputs: its inputs.
        copies: of A, [examples, *shape of the kernel but its last axis, rank], and B, [examples, rank, last axis].
        names: those of the axes of inputs, kernel and outputs; the inputs' first axis is that of the examples.
    """
    letters = {name: chr(ord("a") + number) for number, name in enumerate(dict.fromkeys(sum(names, [])))}
    x, kernel, z = ("".join(letters[name] for name in one) for one in names)
    equation = f"{x},{x[0]}{kernel[:-1]}Z,{x[0]}Z{kernel[-1]}->{z}"
    a, b = (tf.cast(copy, inputs.dtype) for copy in copies)
    return scale(layer) * tf.einsum(equation, inputs, a, b)


def gradients_after(others):
    """The `gradients` of a rule whose last two taps are copies of A and B; `others` serves the other weights."""

    def gradients(layer, calls, microbatch):
        groups = others(layer, calls, microbatch)
        for place, weight in zip((-2, -1), matrices(layer), strict=True):
            if weight.trainable:
                per_call = [microbatch.sum_views(call.tap_gradients[place]) for call in calls]
                groups.append(contributions.kept(weight, tf.add_n(per_call)))
        return groups

    return gradients
