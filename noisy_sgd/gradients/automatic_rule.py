"""Layers of a class without a rule, such as a class token of one's own: each example runs with a copy of the weights.

    class ClassToken(keras.layers.Layer):
        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

        def call(self, tokens):
            first = ops.repeat(self.token, ops.shape(tokens)[0], axis=0)
            return ops.concatenate([first, tokens], axis=1)

A layer that takes one tensor and has no layers in it is mapped over the examples: its call sees a batch of one example,
and that example's copy of the weights. Any other layer's call runs once, on copies [examples, 1, ..., *shape of the
weight] (see `layer_rules.scale`), so that a rule serves each of the layers in it. That is right only if the call
combines its weights and inputs by broadcasting, so the trial compares outputs, and each example's gradient, with the
layer's own (`trials.own_gradients`).
"""

import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients import layer_rules
from noisy_sgd.gradients.engines import example_map

_BROADCAST = layer_rules.scale.rule()


def forward(tape, layer, *args, **kwargs):
    try:
        tensors = [one for one in tf.nest.flatten((args, kwargs)) if tf.is_tensor(one)]
        alone = not keras_internals.layers(layer, include_self=False) and not keras_internals.seed_generators(layer)
        if alone and len(tensors) == 1:
            return _mapped(tape, layer, tensors[0], args, kwargs)
        return _BROADCAST.forward(tape, layer, *args, **kwargs)
    except layer_rules.NoRuleError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a call of the user's raises
        raise layer_rules.NoRuleError(layer, f"it fails ({type(error).__name__})") from error


def in_full(reason: str) -> str:
    """The reason why a layer cannot be served, with what led to it and the way out."""
    return (
        f"its class has no rule, and its call does not do with one copy of its weights per example: {reason}; in its "
        "call, ops.broadcast_to may do in place of ops.repeat and ops.tile"
    )


def _mapped(tape, layer, inputs, args, kwargs):
    weights = keras_internals.own_weights(layer)
    examples = tf.shape(inputs)[0] if inputs.shape[0] is None else inputs.shape[0]
    copies = layer_rules.scale.copies(tape, weights, examples)

    def of_example(elements):
        """The call on a batch of one example."""
        example, values = elements
        one_row = tf.nest.map_structure(lambda t: example[None] if t is inputs else t, (args, kwargs))
        with keras_internals.read_as(layer, list(zip(weights, values, strict=True))):
            # The object's `call` leads back to this rule.
            outputs = type(layer).call(layer, *one_row[0], **one_row[1])
        return tf.nest.map_structure(lambda output: tf.squeeze(output, 0), outputs)

    traced, reason = example_map.vectorized(of_example, (inputs, copies))
    if reason is not None:
        raise layer_rules.NoRuleError(layer, reason)
    return layer_rules.Traced(outputs=traced(inputs, copies), taps=copies)


RULE = layer_rules.Rule(forward=forward, gradients=layer_rules.scale.gradients)
