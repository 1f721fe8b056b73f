"""Layers with few weights: each example runs with its own copy of them, and the backward pass goes to the copies.

The gradient at example i's copy is example i's gradient, whatever the layer computes, as long as it does not mix
examples. So a rule is the layer's formula with weights [examples, ...] in place of weights [...]:

    def forward(layer, inputs, weights):
        positions = [1] * (inputs.shape.rank - 2)
        return inputs * tf.reshape(weights["gain"], [-1, *positions, inputs.shape[-1]])

    layer_rules.register(Gain, scale.rule(forward))

Often the layer's own call computes that by itself, since copies [examples, 1, ..., *shape of the weight] broadcast
against the inputs as the weight does. Then no formula is needed; the trial on synthetic examples compares the two:

    layer_rules.register(Gain, scale.rule())

Covered by tests/gradients/layer_rules/rules_test.py and tests/gradients/visitor_test.py.
"""

import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules.shared import contributions, registry
from noisy_sgd.models import normalizer_free


def rule(forward=None, *, refusal=lambda layer: None, rank=lambda layer, weight, axes: axes) -> registry.Rule:
    """The rule of a layer with few weights: the copies take the memory of the weights times the number of examples.

    Args:
        forward: forward(layer, inputs, weights) -> outputs; `weights` maps the names of the layer's own weights to
            tensors [examples, *shape of the weight], in the precision of the weights. Defaults to the layer's own call.
        refusal: as in `registry.Rule`. Defaults to refusing no layer.
        rank: rank(layer, weight, number of axes of the first input) -> the number of axes of what the layer's own call
            combines the weight with. Defaults to that of the first input.

    Returns:
        The rule.
    """

    def traced(tape, layer, *args, **kwargs):
        inputs = tf.nest.flatten((args, kwargs))[0]
        examples = tf.shape(inputs)[0] if inputs.shape[0] is None else inputs.shape[0]
        weights = keras_internals.own_weights(layer)
        taps = copies(tape, weights, examples)
        if forward is not None:
            named = {weight.name: copy for weight, copy in zip(weights, taps, strict=True)}
            return registry.Traced(outputs=forward(layer, *args, named, **kwargs), taps=taps)
        aligned = []
        for weight, copy in zip(weights, taps, strict=True):
            axes = rank(layer, weight, inputs.shape.rank)
            aligned.append((weight, _aligned(layer, weight, copy, axes)))
        with keras_internals.read_as(layer, aligned):
            # The object's `call` leads back to this rule.
            outputs = type(layer).call(layer, *args, **kwargs)
        return registry.Traced(outputs=outputs, taps=taps)

    return registry.Rule(forward=traced, gradients=gradients, refusal=refusal)


def copies(tape, weights, examples) -> list[tf.Tensor]:
    """One copy of each weight per example, [examples, *shape], watched; no gradient reaches the weight itself."""
    found = []
    for weight in weights:
        value = tf.stop_gradient(tf.convert_to_tensor(weight.value))
        found.append(tf.broadcast_to(value, [examples, *value.shape]))
        tape.watch(found[-1])
    return found


def _aligned(layer, weight, copies, axes):
    """Copies [examples, *shape] that broadcast against tensors of `axes` axes as the weight does."""
    missing = axes - len(weight.shape)
    if missing > 0:
        return tf.reshape(copies, [-1, *[1] * (missing - 1), *weight.shape])
    if missing == 0 and weight.shape[0] == 1:
        return tf.squeeze(copies, 1)
    raise registry.NoRuleError(
        layer, f"its weight {weight.name!r} of shape {tuple(weight.shape)} meets inputs of {axes} axes"
    )


def gradients(layer, calls, microbatch):
    """The gradients at the copies of each trained weight."""
    groups = []
    for index, weight in enumerate(keras_internals.own_weights(layer)):
        if weight.trainable:
            per_call = [microbatch.sum_views(call.tap_gradients[index]) for call in calls]
            groups.append(contributions.kept(weight, tf.add_n(per_call)))
    return groups


def _skip_gain(layer, inputs, weights):
    gain = tf.reshape(layer.alpha * weights["gain"], [-1, *[1] * (inputs.shape.rank - 1)])
    return inputs * tf.cast(gain, inputs.dtype)


registry.register(normalizer_free.SkipGain, rule(_skip_gain))
