"""The weight-standardised convolution: W_hat = gamma * gain * N(W), y = conv(x, W_hat) + b.

Standardising is the same linear map of the gradient for every example. With g = dL_i/dW_hat, u = gamma * gain * g and
sums over the fan-in n of an output channel (see `normalizer_free.Standardization`),

    dL_i/dW    = inverse_norm * (u - sum(u) / n - curvature * N * sum(u N))
    dL_i/dgain = gamma * sum(g N)

Where kernels are smaller than images, g is formed for each example and taken through this map. Elsewhere

    ||dL_i/dW||^2 = inverse_norm^2 * (||u||^2 - sum(u)^2 / n + curvature * (curvature * ||N||^2 - 2) * sum(u N)^2)

needs, beside the norm of an ordinary convolution's gradient, only sum(u) and sum(g N): one number a channel and example
each. They are inner products of the output's gradient with convolutions of the input by a kernel of ones and by N; the
latter is the layer's own output less its bias, over gamma * gain.
"""

import dataclasses
import math

import tensorflow as tf

from noisy_sgd.gradients.layer_rules import convolution, convolution_site
from noisy_sgd.gradients.layer_rules.shared import contributions, forming, registry, rounding
from noisy_sgd.models import normalizer_free

# Where the bias is more than this many times gamma * gain, output less bias has lost too many digits.
LARGEST_BIAS = 10.0


def forward(tape, layer, inputs):
    kernel = tf.cast(tf.stop_gradient(layer.standardized_kernel()), layer.compute_dtype)
    traced = convolution.finish(tape, layer, inputs, convolution.convolve(layer, inputs, kernel))
    return dataclasses.replace(traced, saved={**traced.saved, "outputs": traced.taps[0]})


def gradients(layer, calls, setting):
    convolution.check_sizes(layer, calls)
    groups = convolution.bias_contribution(layer, calls, setting)
    standardization = layer.standardization()
    fields = [setting.cast(getattr(standardization, field.name)) for field in dataclasses.fields(standardization)]
    standardization = normalizer_free.Standardization(
        **{field.name: value for field, value in zip(dataclasses.fields(standardization), fields, strict=True)}
    )
    scale = layer.gamma * setting.cast(tf.convert_to_tensor(layer.gain))
    if layer.kernel.trainable:
        routes = by_norms(layer, calls, setting, standardization, scale)
        sites = [convolution_site.Site(layer, call, setting, may_fold=False) for call in calls]
        if forming.by_calls(sites) or layer.fan_in <= sum(site.positions for site in sites):
            routes = [route for route in routes if route.name == "gram"]
            routes.extend(by_map(layer, sites, standardization, scale))
        groups.append(routes)
    elif layer.gain.trainable:
        along = along_normalized(layer, calls, setting, standardization, scale)
        groups.append(contributions.kept(layer.gain, layer.gamma * along))
    return groups


def by_map(layer, sites, standardization, scale):
    """The routes that take every example's gradient through the map."""
    setting = sites[0].setting
    weights = [layer.kernel, layer.gain] if layer.gain.trainable else [layer.kernel]
    sizes = [[math.prod(weight.shape)] for weight in weights]
    normalized = tf.reshape(standardization.normalized, [layer.fan_in, -1])
    channel_scale = standardization.inverse_norm * scale

    def mapped(gradients):
        """[n, size] of the standardised kernel -> those of the weights, [n, size] each."""
        gradients = tf.reshape(gradients, [-1, *normalized.shape])
        along = tf.reduce_sum(gradients * normalized, axis=1, keepdims=True)
        slope = standardization.curvature * normalized * along
        mean = tf.reduce_mean(gradients, axis=1, keepdims=True)
        kernel = (gradients - mean - slope) * channel_scale
        return [tf.reshape(kernel, [-1, *sizes[0]]), layer.gamma * tf.squeeze(along, 1)][: len(weights)]

    def squares(gradients):
        gradients = tf.reshape(gradients, [-1, *normalized.shape])
        centered = gradients - tf.reduce_mean(gradients, axis=1, keepdims=True)
        along = tf.reduce_sum(centered * normalized, axis=1)
        by_channel = tf.square(channel_scale) * tf.reduce_sum(tf.square(centered), axis=1)
        signed, absolute = shrinkage(layer, standardization, scale)
        along = tf.square(along)
        return [tf.reduce_sum(by_channel + factor * along, axis=1) for factor in (signed, absolute)]

    def per_example():
        return contributions.kept_together(weights, forming.each(sites, mapped, sizes))

    def formed_twice():
        def shaped(gradient):
            rows = mapped(tf.reshape(gradient, [1, -1]))
            return [tf.reshape(one, weight.shape) for one, weight in zip(rows, weights, strict=True)]

        def exactly(index):
            return tf.add_n([tf.reduce_sum(tf.square(rows)) for rows in mapped(forming.one(sites, index))])

        found, terms = forming.each(sites, squares, [[], []])
        steepest = tf.square(channel_scale)
        if layer.gain.trainable:
            steepest += tf.reduce_sum(tf.square(layer.gamma * normalized), axis=0)
        sizes = convolution.sizes_of_formed(sites, terms, tf.sqrt(steepest))
        squared_norms, apart = rounding.settled(found, sizes, exactly, setting)
        both = convolution.from_both(layer, sites, squared_norms)

        def sums(factors, tensors):
            (total,) = both.sums(rounding.without_those_apart(factors, apart), tensors)
            return rounding.with_those_apart(
                shaped(total), factors, apart, lambda index: shaped(forming.one(sites, index, tensors))
            )

        return dataclasses.replace(both, weights=weights, sums=sums)

    # Beside what an ordinary kernel's cost, so often are gradients passed over.
    passes = 3 if forming.by_calls(sites) else 9
    moved = passes * setting.assumed_units * sizes[0][0] * setting.dtype.size
    return forming.routes(sites, per_example, formed_twice, moved)


def shrinkage(layer, standardization, scale):
    """What an example's squared norm gets for each sum(g N)^2, beside the centred part of its ordinary norm.

    Returns:
        The factors [channels], of which the kernel's is mostly negative, and what they are added up from.
    """
    squares = tf.reduce_sum(tf.square(standardization.normalized), axis=[0, 1, 2])
    curvature = standardization.curvature
    of_kernel = curvature * (curvature * squares - 2) * tf.square(standardization.inverse_norm * scale)
    of_gain = layer.gamma**2 if layer.gain.trainable else 0.0
    return of_kernel + of_gain, tf.abs(of_kernel) + of_gain


def by_norms(layer, calls, setting, standardization, scale):
    """The routes of an ordinary convolution with scaled output gradients, corrected by the two inner products."""
    normalized, curvature = standardization.normalized, standardization.curvature
    # W's gradient is that of a convolution whose output gradients are scaled by this, less the two projections.
    channel_scale = standardization.inverse_norm * scale
    sites = [convolution_site.Site(layer, call, setting, channel_scale=channel_scale, may_fold=False) for call in calls]

    def projected(scaled):
        """A gradient of the ordinary kernel, or the sum of such, as that of the weights."""
        product = tf.reduce_sum(scaled * normalized, axis=[0, 1, 2])
        return scaled - tf.reduce_mean(scaled, axis=[0, 1, 2]) - curvature * normalized * product

    def through(contribution, sizes, form):
        if sizes is None:
            # Of the ordinary kernel's gradient, which is projected once as itself and once in the sum.
            lengths = tf.sqrt(contribution.squared_norms)
            sizes = rounding.Sizes(terms=contribution.squared_norms, lengths=lengths, running=None, positions=1)
        along = along_normalized(layer, calls, setting, standardization, scale)
        along_squares = tf.square(along)
        of_means = tf.square(tf.add_n([sum_over_fan_in(layer, site) for site in sites])) / layer.fan_in
        signed, absolute = shrinkage(layer, standardization, scale)
        squared_norms = contribution.squared_norms + tf.reduce_sum(signed * along_squares - of_means, axis=1)
        terms = [sizes.terms, tf.reduce_sum(absolute * along_squares + of_means, axis=1)]
        if layer.use_bias:
            terms.append(of_bias(layer, sites, scale, sizes.terms))
        sizes = dataclasses.replace(sizes, terms=tf.add_n(terms))

        def exactly(index):
            of_kernel = tf.reduce_sum(tf.square(projected(form(contribution.tensors, index))))
            if not layer.gain.trainable:
                return of_kernel
            return of_kernel + layer.gamma**2 * tf.reduce_sum(tf.gather(along_squares, index))

        squared_norms, apart = rounding.settled(squared_norms, sizes, exactly, setting)
        tensors, weights = list(contribution.tensors), [layer.kernel]
        if layer.gain.trainable:
            tensors, weights = [*tensors, along], [layer.kernel, layer.gain]

        def sums(factors, tensors):
            own = tensors[: len(contribution.tensors)]
            (scaled,) = contribution.sums(rounding.without_those_apart(factors, apart), own)
            (kernel,) = rounding.with_those_apart(
                [projected(scaled)], factors, apart, lambda index: [projected(form(own, index))]
            )
            gain = [
                layer.gamma * tf.squeeze(contributions.weighted_rows(factors, rows), 0)
                for rows in tensors[len(contribution.tensors) :]
            ]
            return [kernel, *gain]

        return contributions.Contribution(weights=weights, squared_norms=squared_norms, tensors=tensors, sums=sums)

    return convolution.kernel_routes(layer, sites, through)


def of_bias(layer, sites, scale, magnitude):
    """What rounding of the outputs adds to the size of what is added up, where the bias outweighs the convolution.

    The outputs are rounded to an eps of the bias, which goes into sum(g N) times the length of the output's gradient.
    """
    setting = sites[0].setting
    outweighs = tf.math.divide_no_nan(tf.abs(setting.cast(tf.convert_to_tensor(layer.bias))), tf.abs(scale))
    largest = tf.minimum(tf.reduce_max(outweighs), LARGEST_BIAS)
    squares = [contributions.row_squares(tf.reshape(site.z, [-1, math.prod(site.z.shape[1:])])) for site in sites]
    return largest * tf.sqrt(magnitude * setting.sum_views(tf.add_n(squares)))


def along_normalized(layer, calls, setting, standardization, scale):
    """sum(g N) of each example and channel, [units, channels]."""
    bias = setting.cast(tf.convert_to_tensor(layer.bias)) if layer.use_bias else tf.zeros_like(scale)
    exact = tf.reduce_all((tf.abs(bias) <= LARGEST_BIAS * tf.abs(scale)) & (scale != 0))

    def one(call):
        z = setting.cast(convolution_site.channels_last(layer, call.tap_gradients[0]))

        def product(outputs):
            outputs = setting.cast(convolution_site.channels_last(layer, outputs))
            flat = tf.reshape(z * outputs, [-1, math.prod(z.shape[1:-1]), z.shape[-1]])
            return setting.sum_views(tf.reduce_sum(flat, axis=1))

        def from_outputs():
            flat = tf.reshape(z, [-1, math.prod(z.shape[1:-1]), z.shape[-1]])
            of_bias = setting.sum_views(tf.reduce_sum(flat, axis=1)) * bias
            return (product(call.saved["outputs"]) - of_bias) / scale

        def anew():
            inputs = setting.cast(call.saved["inputs"])
            return product(convolution.convolve(layer, inputs, standardization.normalized))

        # Outputs rounded to a shorter compute dtype are coarser than norms should be.
        rounded = call.saved["outputs"].dtype != setting.dtype
        return anew() if rounded else tf.cond(exact, from_outputs, anew)

    return tf.add_n([one(call) for call in calls])


def sum_over_fan_in(layer, site):
    """The sum over the fan-in of each example's (scaled) gradient, [units, channels]."""
    x = tf.reshape(site.x, [-1, *site.x.shape[1:-1], site.blocks, site.inputs_a_block])
    x = tf.reduce_sum(x, axis=-1)
    ones = tf.ones([*layer.kernel_size, site.blocks, 1], x.dtype)
    stride = [1, *site.strides, 1]
    if site.blocks == 1:
        read = tf.nn.conv2d(x, ones, stride, site.padding.upper(), dilations=site.dilations)
    else:
        read = tf.nn.depthwise_conv2d(x, ones, stride, site.padding.upper(), dilations=site.dilations)
    read = tf.reshape(read, [-1, site.positions, site.blocks])
    if site.blocks == 1:
        z = tf.reshape(site.z, [-1, site.positions, site.outputs_a_block])
        return tf.squeeze(tf.matmul(read, z, transpose_a=True), 1)
    z = tf.reshape(site.z, [-1, site.positions, site.blocks, site.outputs_a_block])
    return tf.reshape(tf.einsum("utb,utbq->ubq", read, z), [-1, site.z.shape[-1]])


registry.register(
    normalizer_free.WeightStandardizedConv2D,
    registry.Rule(forward=forward, gradients=gradients, refusal=convolution.refusal),
)
