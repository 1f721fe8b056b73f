"""Transposed and separable convolutions, made of ordinary ones: the gradient of a kernel is that of such a convolution.

A transposed convolution is the derivative of a convolution from its outputs to its inputs. So its kernel's gradient is
that convolution's, with input and output gradient exchanged:

    dL_i/dW[o] = sum_t dz_i[stride * t + dilation * o] x_i[t]^T

A separable convolution is a depthwise one, then one of size 1; so is one with LoRA enabled, beside the frozen kernel,
where the first one is not depthwise.

Covered by tests/gradients/layer_rules/convolution_parts_test.py.
"""

import dataclasses
import functools
from typing import Any

import keras
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import convolution, convolution_site, embedding, lora
from noisy_sgd.gradients.layer_rules.shared import contributions, registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What `convolution_site.Site` reads of a layer that is an ordinary convolution without bias."""

    kernel: Any
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str
    data_format: str
    groups: int = 1

    @property
    def rank(self) -> int:
        return len(self.kernel_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwisePart(Part):
    """The same for a depthwise convolution."""

    depth_multiplier: int


def transposed_forward(tape, layer, inputs):
    outputs = ops.conv_transpose(
        inputs,
        registry.constant(layer.kernel),
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return convolution.finish(tape, layer, inputs, outputs)


def transposed_gradients(layer, calls, microbatch):
    convolution.check_sizes(layer, calls)
    groups = convolution.bias_contribution(layer, calls, microbatch)
    if layer.kernel.trainable:
        part = _part(Part, layer, layer.kernel)
        exchanged = [(call.tap_gradients[0], call.saved["inputs"]) for call in calls]
        groups.append(_routes(part, exchanged, microbatch))
    return groups


def separable_forward(tape, layer, inputs):
    options = {"data_format": layer.data_format}
    between = ops.depthwise_conv(
        inputs,
        registry.constant(layer.depthwise_kernel),
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        **options,
    )
    between = tape.tap(between)
    outputs = ops.conv(between, registry.constant(layer.pointwise_kernel), padding="valid", **options)
    finished = convolution.finish(tape, layer, inputs, outputs)
    saved = {**finished.saved, "between": between}
    return dataclasses.replace(finished, taps=[*finished.taps, between], saved=saved)


def separable_gradients(layer, calls, microbatch):
    convolution.check_sizes(layer, calls)
    groups = convolution.bias_contribution(layer, calls, microbatch)
    if layer.depthwise_kernel.trainable:
        part = _part(DepthwisePart, layer, layer.depthwise_kernel, depth_multiplier=layer.depth_multiplier)
        pairs = [(call.saved["inputs"], call.tap_gradients[1]) for call in calls]
        groups.append(_routes(part, pairs, microbatch))
    if layer.pointwise_kernel.trainable:
        ones = (1,) * layer.rank
        part = _part(
            Part, layer, layer.pointwise_kernel, kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid"
        )
        pairs = [(call.saved["between"], call.tap_gradients[0]) for call in calls]
        groups.append(_routes(part, pairs, microbatch))
    return groups


def _part(kind, layer, kernel, **others):
    names = ("kernel_size", "strides", "dilation_rate", "padding", "data_format")
    return kind(kernel=kernel, **{**{name: getattr(layer, name) for name in names}, **others})


def _routes(part, pairs, microbatch):
    """The routes to the kernel's contribution from (input, output gradient) of every call."""
    calls = [registry.Call(saved={"inputs": inputs}, tap_gradients=[slope]) for inputs, slope in pairs]
    return convolution.kernel_routes(part, [convolution_site.Site(part, call, microbatch) for call in calls])


def lora_forward(tape, layer, inputs):
    kernel, a, b = (
        registry.constant(weight) for weight in (keras_internals.stored_kernel(layer), *lora.matrices(layer))
    )
    inner = convolution.convolve(layer, inputs, a)
    last = convolution_site.channels_last(layer, inner)
    added = lora.scale(layer) * ops.matmul(last, b)
    if layer.data_format == "channels_first":
        added = ops.moveaxis(added, -1, 1)
    traced = convolution.finish(tape, layer, inputs, convolution.convolve(layer, inputs, kernel) + added)
    return dataclasses.replace(traced, saved={**traced.saved, "inner": last})


def lora_gradients(layer, calls, microbatch):
    convolution.check_sizes(layer, calls)
    groups = convolution.bias_contribution(layer, calls, microbatch)
    kernel, (a, b) = keras_internals.stored_kernel(layer), lora.matrices(layer)
    slopes = [convolution_site.channels_last(layer, call.tap_gradients[0]) for call in calls]
    slopes = [lora.scale(layer) * microbatch.cast(slope) for slope in slopes]
    if kernel.trainable:
        pairs = [(call.saved["inputs"], call.tap_gradients[0]) for call in calls]
        groups.append(_routes(_part(Part, layer, kernel), pairs, microbatch))
    if a.trainable:
        inputs = [convolution_site.channels_last(layer, call.saved["inputs"]) for call in calls]
        wide = microbatch.cast(ops.convert_to_tensor(b))
        pairs = [(x, ops.matmul(slope, ops.transpose(wide))) for x, slope in zip(inputs, slopes, strict=True)]
        groups.append(_routes(_part(Part, layer, a, data_format="channels_last"), pairs, microbatch))
    if b.trainable:
        rank, filters = b.shape
        inner = [embedding.by_unit(microbatch.cast(call.saved["inner"]), [rank], microbatch) for call in calls]
        slopes = [embedding.by_unit(slope, [filters], microbatch) for slope in slopes]
        products = [ops.matmul(ops.swapaxes(one, 1, 2), slope) for one, slope in zip(inner, slopes, strict=True)]
        groups.append(contributions.kept(b, functools.reduce(ops.add, products)))
    return groups


def lora_refusal(layer):
    return "it has LoRA enabled and several groups" if layer.groups > 1 else convolution.refusal(layer)


for _layer_class in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D):
    registry.register(
        _layer_class,
        dataclasses.replace(
            convolution.rule,
            lora=registry.Rule(forward=lora_forward, gradients=lora_gradients, refusal=lora_refusal),
        ),
    )
for _layer_class in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose):
    registry.register(
        _layer_class,
        registry.Rule(forward=transposed_forward, gradients=transposed_gradients, refusal=convolution.refusal),
    )
for _layer_class in (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D):
    registry.register(
        _layer_class,
        registry.Rule(forward=separable_forward, gradients=separable_gradients, refusal=convolution.refusal),
    )
