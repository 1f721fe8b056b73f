"""The weight-standardised convolution: W_hat = gamma * gain * N(W), y = conv(x, W_hat) + b.

Standardising is the same linear map of the gradient for every example. With g = dL_i/dW_hat, u = gamma * gain * g and sums over
the fan-in n of an output channel (see `normalizer_free.Standardization`),

    dL_i/dW    = inverse_norm * (u - sum(u) / n - curvature * N * sum(u N))
    dL_i/dgain = gamma * sum(g N)

    ||dL_i/dW||^2 = inverse_norm^2 * (||u||^2 - sum(u)^2 / n + curvature * (curvature * ||N||^2 - 2) * sum(u N)^2)

so that beside the norm of an ordinary convolution's gradient only sum(u) and sum(g N) are needed: one number a channel
and example each. Both are inner products of the output's gradient with convolutions of the input, by a kernel of ones
and by N; the latter is the layer's own output over gamma * gain.
"""

import dataclasses
import math

import tensorflow as tf

from noisy_sgd.gradients.layer_rules import contributions, convolution, registry
from noisy_sgd.models import normalizer_free

# Stands for a gain of exactly 0, which the output could not be divided by; far below rounding.
TINY_GAIN = 1e-20


def forward(tape, layer, inputs):
    standardization, scale = _standardization(layer)
    kernel = tf.cast(standardization.normalized * scale, layer.compute_dtype)
    outputs = convolution.convolve(layer, inputs, kernel)
    return convolution.finish(tape, layer, inputs, outputs, unbiased=outputs)


def _standardization(layer):
    """N and its derivative, through which no gradient flows, and gamma * gain."""
    found = layer.standardization()
    found = type(found)(**{f.name: tf.stop_gradient(getattr(found, f.name)) for f in dataclasses.fields(found)})
    gain = tf.stop_gradient(tf.convert_to_tensor(layer.gain))
    return found, layer.gamma * tf.where(gain == 0, tf.cast(TINY_GAIN, gain.dtype), gain)


def gradients(layer, calls, setting):
    groups = convolution.bias_contribution(layer, calls, setting)
    if not (layer.kernel.trainable or layer.gain.trainable):
        return groups
    standardization, scale = _standardization(layer)
    normalized, inverse_norm, curvature, scale = (
        setting.cast(t) for t in (standardization.normalized, standardization.inverse_norm, standardization.curvature, scale)
    )
    along = tf.add_n([_along_normalized(layer, call, normalized, scale, setting) for call in calls])
    gain_slopes = layer.gamma * along
    if not layer.kernel.trainable:
        return [*groups, contributions.kept(layer.gain, gain_slopes)]

    # W's gradient is that of a convolution whose output gradients are scaled by this, less the two projections.
    channel_scale = inverse_norm * scale
    sites = [convolution.Site(layer, call, setting, channel_scale) for call in calls]
    sums_over_fan_in = tf.add_n([_over_fan_in(layer, site, setting) for site in sites])
    squares = tf.reduce_sum(tf.square(normalized), axis=[0, 1, 2])
    shrinkage = curvature * (curvature * squares - 2) * tf.square(channel_scale)
    if layer.gain.trainable:
        shrinkage = shrinkage + layer.gamma**2
    correction = tf.reduce_sum(shrinkage * tf.square(along) - tf.square(sums_over_fan_in) / layer.fan_in, axis=1)

    def through(contribution):
        def sums(factors, tensors):
            (scaled,) = contribution.sums(factors, tensors)
            product = tf.reduce_sum(scaled * normalized, axis=[0, 1, 2])
            kernel = scaled - tf.reduce_mean(scaled, axis=[0, 1, 2]) - curvature * normalized * product
            found = [kernel]
            if layer.gain.trainable:
                found.append(layer.gamma * product / channel_scale)
            return found

        weights = [layer.kernel, layer.gain] if layer.gain.trainable else [layer.kernel]
        squared_norms = tf.maximum(contribution.squared_norms + correction, 0.0)
        return contributions.Contribution(
            weights=weights, squared_norms=squared_norms, tensors=contribution.tensors, sums=sums
        )

    def wrapped(route):
        return dataclasses.replace(route, build=lambda: through(route.build()))

    return [*groups, [wrapped(route) for route in convolution.kernel_routes(layer, sites, setting)]]


def _along_normalized(layer, call, normalized, scale, setting):
    """sum(g N) of each example and channel, [units, channels]."""
    z = setting.cast(convolution.channels_last(layer, call.tap_gradients[0]))
    if call.saved["unbiased"].dtype == setting.dtype:
        outputs = convolution.channels_last(layer, call.saved["unbiased"]) / scale
    else:
        # The layer's own output is rounded to the compute dtype, coarser than norms should be.
        outputs = convolution.convolve(layer, setting.cast(call.saved["inputs"]), normalized)
        outputs = convolution.channels_last(layer, outputs)
    product = tf.reshape(z * outputs, [-1, math.prod(z.shape[1:-1]), z.shape[-1]])
    return setting.sum_views(tf.reduce_sum(product, axis=1))


def _over_fan_in(layer, site, setting):
    """The sum over the fan-in of each example's gradient, [units, channels]."""
    a_block = site.inputs_a_block
    x = site.x
    if site.blocks > 1:
        x = tf.reshape(x, [-1, *x.shape[1:-1], site.blocks, a_block])
        x = tf.reduce_sum(x, axis=-1)
        ones = tf.ones([*layer.kernel_size, site.blocks, 1], x.dtype)
        read = tf.nn.depthwise_conv2d(x, ones, [1, *site.strides, 1], site.padding.upper(), dilations=site.dilations)
        read = tf.repeat(read, site.outputs_a_block, axis=-1)
        product = tf.reshape(site.z * read, [-1, site.positions, site.z.shape[-1]])
        return tf.reduce_sum(product, axis=1)
    ones = tf.ones([*layer.kernel_size, a_block, 1], x.dtype)
    read = tf.nn.conv2d(x, ones, [1, *site.strides, 1], site.padding.upper(), dilations=site.dilations)
    read = tf.reshape(read, [-1, site.positions, 1])
    z = tf.reshape(site.z, [-1, site.positions, site.z.shape[-1]])
    return tf.matmul(read, z, transpose_a=True)[:, 0]


registry.register(
    normalizer_free.WeightStandardizedConv2D,
    registry.Rule(forward=forward, gradients=gradients, refusal=convolution.refusal),
)
