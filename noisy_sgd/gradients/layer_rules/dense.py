"""Dense and EinsumDense: z = x W + b at every position of an example.

    dL_i/dW = sum_t x_{i,t} dz_{i,t}^T          dL_i/db = sum_t dz_{i,t}

MultiHeadAttention and GroupedQueryAttention are made of EinsumDense layers, so they need no rules.

Covered by tests/gradients/layer_rules/rules_test.py and bound_test.py.
"""

import dataclasses
import math
import re

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import lora
from noisy_sgd.gradients.layer_rules.shared import contributions, positions, registry


def dense_forward(tape, layer, inputs, training=None):
    return finish(tape, layer, inputs, ops.matmul(inputs, registry.constant(layer.kernel)))


def finish(tape, layer, inputs, outputs):
    """Applies bias and activation after a matrix product; taps the gradient between them."""
    if layer.bias is not None:
        outputs = ops.add(outputs, registry.constant(layer.bias))
    outputs = tape.tap(outputs)
    activated = outputs if layer.activation is None else layer.activation(outputs)
    return registry.Traced(outputs=activated, taps=[outputs], saved=inputs)


def dense_gradients(layer, calls, microbatch):
    kernel = keras_internals.stored_kernel(layer)
    taken, given = kernel.shape
    gradient = _positions([call.tap_gradients[0] for call in calls], given, microbatch)
    groups = []
    if kernel.trainable:
        inputs = _positions([call.saved for call in calls], taken, microbatch)
        groups.append(positions.routes(kernel, inputs, gradient, microbatch, lambda s: s[0], as_formed=True))
    if layer.bias is not None and layer.bias.trainable:
        per_example = gradient[:, 0] if gradient.shape[1] == 1 else tf.reduce_sum(gradient, axis=1)
        groups.append(contributions.kept(layer.bias, per_example))
    return groups


def einsum_forward(tape, layer, inputs, training=None):
    return finish(tape, layer, inputs, ops.einsum(layer.equation, inputs, registry.constant(layer.kernel)))


def einsum_gradients(layer, calls, microbatch):
    groups, kernel = [], keras_internals.stored_kernel(layer)
    if kernel.trainable:
        x_axes, kernel_axes, z_axes = axes(layer.equation, calls[0].saved.shape.rank)
        shared = [axis for axis in kernel_axes if axis in x_axes and axis in z_axes]
        contracted = [axis for axis in kernel_axes if axis in x_axes and axis not in z_axes]
        produced = [axis for axis in kernel_axes if axis in z_axes and axis not in x_axes]
        places = [axis for axis in x_axes[1:] if axis in z_axes and axis not in kernel_axes]
        sizes = dict(zip(kernel_axes, kernel.shape, strict=True))

        def matrix(tensors, axes, last):
            """[units, blocks, T, channels] in the order of the axes' names, all calls' positions concatenated."""
            order = [0, *(axes.index(axis) for axis in [*shared, *places, *last])]
            blocks, channels = (math.prod(sizes[axis] for axis in names) for names in (shared, last))
            parts = []
            for tensor in tensors:
                tensor = microbatch.cast(tf.transpose(tensor, order))
                examples = _size(tensor, 0)
                first = 1 + len(shared)
                count = math.prod(_size(tensor, axis) for axis in range(first, first + len(places)))
                if microbatch.views > 1:
                    units = examples // microbatch.views
                    tensor = tf.reshape(tensor, [units, microbatch.views, blocks, count, channels])
                    tensor = tf.transpose(tensor, [0, 2, 1, 3, 4])
                    tensor = tf.reshape(tensor, [units, blocks, microbatch.views * count, channels])
                else:
                    tensor = tf.reshape(tensor, [examples, blocks, count, channels])
                parts.append(tensor)
            joined = parts[0] if len(parts) == 1 else tf.concat(parts, axis=2)
            return joined[:, 0] if blocks == 1 else joined

        def arrange(sums):
            named = [*shared, *contracted, *produced]
            sums = tf.reshape(sums, [sizes[axis] for axis in named])
            return tf.transpose(sums, [named.index(axis) for axis in kernel_axes])

        a = matrix([call.saved for call in calls], x_axes, contracted)
        b = matrix([call.tap_gradients[0] for call in calls], z_axes, produced)
        groups.append(positions.routes(kernel, a, b, microbatch, arrange))
    if layer.bias is not None and layer.bias.trainable:
        groups.append(contributions.kept(layer.bias, tf.add_n([_bias(layer.bias, call, microbatch) for call in calls])))
    return groups


def einsum_refusal(layer):
    """Refuses an equation whose batch is not the first axis, or that sums over an axis of one operand alone."""
    left, right = layer.equation.replace(" ", "").split("->")
    x_axes, kernel_axes = left.split(",")
    if "..." in kernel_axes or not x_axes or x_axes[0] != right[:1] or x_axes[0] in kernel_axes:
        return f"its equation {layer.equation!r} does not keep the examples on the first axis"
    lone = [a for a in re.sub(r"\W", "", x_axes) if a not in kernel_axes and a not in right]
    lone += [a for a in kernel_axes if a not in x_axes and a not in right]
    if lone:
        return f"its equation {layer.equation!r} sums over {lone[0]!r} in one operand alone"
    return None


def axes(equation, rank):
    """The names of the axes of input, kernel and output, with an ellipsis spelled out."""
    left, right = equation.replace(" ", "").split("->")
    x_axes, kernel_axes = left.split(",")
    unnamed = [str(index) for index in range(rank - len(x_axes.replace("...", "")))]

    def spelled(axes):
        before, dots, after = axes.partition("...")
        return [*before, *(unnamed if dots else []), *after]

    return spelled(x_axes), spelled(kernel_axes), spelled(right)


def _bias(bias, call, microbatch):
    """Sums over leading axes, and over axes where the bias has size 1: it has the trailing axes of the output."""
    gradient = microbatch.cast(call.tap_gradients[0])
    rank, offset = gradient.shape.rank, gradient.shape.rank - len(bias.shape)
    constant_axes = [axis for axis in range(1, rank) if axis < offset or bias.shape[axis - offset] == 1]
    summed = tf.reduce_sum(gradient, axis=constant_axes)
    return microbatch.sum_views(tf.reshape(summed, [-1, *bias.shape]) if 1 in bias.shape else summed)


def _size(tensor, axis):
    """The size of an axis, as a number where it is known."""
    return tf.shape(tensor)[axis] if tensor.shape[axis] is None else tensor.shape[axis]


def _positions(tensors, channels, microbatch):
    """[units * views, ..., channels] of every call -> [units, positions of all views and calls, channels]."""
    parts = []
    for tensor in tensors:
        tensor = microbatch.cast(tensor)
        count = microbatch.views * math.prod(_size(tensor, axis) for axis in range(1, tensor.shape.rank - 1))
        parts.append(tf.reshape(tensor, [_size(tensor, 0) // microbatch.views, count, channels]))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


def dense_lora(tape, layer, inputs, training=None):
    outputs = ops.matmul(inputs, registry.constant(keras_internals.stored_kernel(layer)))
    names = [*map(str, range(inputs.shape.rank - 1)), "p"], ["p", "q"], [*map(str, range(inputs.shape.rank - 1)), "q"]
    return _with_lora(tape, layer, inputs, outputs, names)


def einsum_lora(tape, layer, inputs, training=None):
    kernel = registry.constant(keras_internals.stored_kernel(layer))
    outputs = ops.einsum(layer.equation, inputs, kernel)
    return _with_lora(tape, layer, inputs, outputs, axes(layer.equation, inputs.shape.rank))


def _with_lora(tape, layer, inputs, outputs, names):
    """Adds what LoRA adds, from one copy of its small matrices per example, at which the gradients are taken."""
    copies = lora.copies(tape, layer, inputs)
    traced = finish(tape, layer, inputs, outputs + lora.product(layer, inputs, copies, names))
    return dataclasses.replace(traced, taps=[*traced.taps, *copies])


registry.register(
    keras.layers.Dense,
    registry.Rule(
        forward=dense_forward,
        gradients=dense_gradients,
        lora=registry.Rule(forward=dense_lora, gradients=lora.gradients_after(dense_gradients)),
    ),
)
registry.register(
    keras.layers.EinsumDense,
    registry.Rule(
        forward=einsum_forward,
        gradients=einsum_gradients,
        refusal=einsum_refusal,
        lora=registry.Rule(
            forward=einsum_lora, gradients=lora.gradients_after(einsum_gradients), refusal=einsum_refusal
        ),
    ),
)
