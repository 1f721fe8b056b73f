"""The weight-standardized convolution: W_hat = gamma * gain * N(W), y = conv(x, W_hat) + b.

Standardization maps every example's gradient by the same linear map. With g = dL_i/dW_hat, u = gamma * gain * g and
sums over the fan-in n of an output channel (see `normalizer_free.Standardization`),

    dL_i/dW    = inverse_norm * (u - sum(u) / n - curvature * N * sum(u N))
    dL_i/dgain = gamma * sum(g N)

Where kernels are smaller than images, g is formed for each example and mapped. Elsewhere the norm

    ||dL_i/dW||^2 = inverse_norm^2 * (||u||^2 - sum(u)^2 / n + curvature * (curvature * ||N||^2 - 2) * sum(u N)^2)

needs only the norm of an ordinary convolution's gradient and sum(u) and sum(g N), one number each per channel and
example. The two sums are inner products of the output's gradient with convolutions of the input, by a kernel of ones
and by N. The convolution by N is (output - bias) / (gamma * gain).

Covered by tests/gradients/layer_rules/rules_test.py and bound_test.py.
"""

import dataclasses
import math

import tensorflow as tf

from noisy_sgd.gradients.layer_rules import convolution, convolution_site
from noisy_sgd.gradients.layer_rules.shared import contributions, forming, registry, rounding
from noisy_sgd.models import normalizer_free

# Where the bias is more than this many times gamma * gain, (output - bias) has lost too many digits.
LARGEST_BIAS = 10.0


def forward(tape, layer, inputs):
    kernel = tf.cast(tf.stop_gradient(layer.standardized_kernel()), layer.compute_dtype)
    traced = convolution.finish(tape, layer, inputs, convolution.convolve(layer, inputs, kernel))
    return dataclasses.replace(traced, saved={**traced.saved, "outputs": traced.taps[0]})


def gradients(layer, calls, microbatch):
    convolution.check_sizes(layer, calls)
    groups = convolution.bias_contribution(layer, calls, microbatch)
    standardization = layer.standardization()
    fields = [microbatch.cast(getattr(standardization, field.name)) for field in dataclasses.fields(standardization)]
    standardization = normalizer_free.Standardization(
        **{field.name: value for field, value in zip(dataclasses.fields(standardization), fields, strict=True)}
    )
    scale = layer.gamma * microbatch.cast(tf.convert_to_tensor(layer.gain))
    if layer.kernel.trainable:
        routes = by_norms(layer, calls, microbatch, standardization, scale)
        sites = [convolution_site.Site(layer, call, microbatch, may_fold=False) for call in calls]
        if forming.by_calls(sites) or layer.fan_in <= sum(site.positions for site in sites):
            routes = [route for route in routes if route.name == "gram"]
            routes.extend(by_map(layer, sites, standardization, scale))
        groups.append(routes)
    elif layer.gain.trainable:
        along = along_normalized(layer, calls, microbatch, standardization, scale)
        groups.append(contributions.kept(layer.gain, layer.gamma * along))
    return groups


def by_map(layer, sites, standardization, scale):
    """The routes that map every example's gradient."""
    microbatch = sites[0].microbatch
    weights = [layer.kernel, layer.gain] if layer.gain.trainable else [layer.kernel]
    sizes = [[math.prod(weight.shape)] for weight in weights]
    normalized = tf.reshape(standardization.normalized, [layer.fan_in, -1])
    channel_scale = standardization.inverse_norm * scale

    def mapped(gradients):
        """Gradients of the standardized kernel [n, size] -> those of the weights, [n, size] each."""
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

        squared_norms, terms = forming.each(sites, squares, [[], []])
        steepest = tf.square(channel_scale)
        if layer.gain.trainable:
            steepest += tf.reduce_sum(tf.square(layer.gamma * normalized), axis=0)
        sizes = convolution.sizes_of_formed(sites, terms, tf.sqrt(steepest))
        squared_norms, one_by_one = rounding.guarded_norms(squared_norms, sizes, exactly, microbatch)
        both = convolution.from_both(layer, sites, squared_norms)

        def sums(factors, tensors):
            (total,) = both.sums(rounding.factors_of_others(factors, one_by_one), tensors)
            return rounding.add_one_by_one(
                shaped(total), factors, one_by_one, lambda index: shaped(forming.one(sites, index, tensors))
            )

        return dataclasses.replace(both, weights=weights, sums=sums)

    # The passes over the gradients beyond those of an ordinary kernel.
    passes = 3 if forming.by_calls(sites) else 9
    moved = passes * microbatch.assumed_units * sizes[0][0] * microbatch.dtype.size
    return forming.routes(sites, per_example, formed_twice, moved)


def shrinkage(layer, standardization, scale):
    """The factors of sum(g N)^2 in an example's squared norm, beside the centered part of the ordinary norm.

    Returns:
        The factors [channels], mostly negative for the kernel, and the sums of their terms' absolute values.
    """
    squares = tf.reduce_sum(tf.square(standardization.normalized), axis=[0, 1, 2])
    curvature = standardization.curvature
    of_kernel = curvature * (curvature * squares - 2) * tf.square(standardization.inverse_norm * scale)
    of_gain = layer.gamma**2 if layer.gain.trainable else 0.0
    return of_kernel + of_gain, tf.abs(of_kernel) + of_gain


def by_norms(layer, calls, microbatch, standardization, scale):
    """The routes of an ordinary convolution with scaled output gradients, corrected by the two inner products."""
    normalized, curvature = standardization.normalized, standardization.curvature
    # W's gradient is that of a convolution whose output gradients are scaled by this, less the two projections.
    channel_scale = standardization.inverse_norm * scale
    sites = [
        convolution_site.Site(layer, call, microbatch, channel_scale=channel_scale, may_fold=False) for call in calls
    ]

    def projected(scaled):
        """A gradient of the ordinary kernel, or a sum of them -> that of the layer's kernel."""
        product = tf.reduce_sum(scaled * normalized, axis=[0, 1, 2])
        return scaled - tf.reduce_mean(scaled, axis=[0, 1, 2]) - curvature * normalized * product

    def through(contribution, sizes, form):
        if sizes is None:
            # The sizes of the ordinary kernel's gradient, which is projected once by itself and once in the sum.
            lengths = tf.sqrt(contribution.squared_norms)
            sizes = rounding.Sizes(terms=contribution.squared_norms, lengths=lengths, running=None, positions=1)
        along = along_normalized(layer, calls, microbatch, standardization, scale)
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

        squared_norms, one_by_one = rounding.guarded_norms(squared_norms, sizes, exactly, microbatch)
        tensors, weights = list(contribution.tensors), [layer.kernel]
        if layer.gain.trainable:
            tensors, weights = [*tensors, along], [layer.kernel, layer.gain]

        def sums(factors, tensors):
            own = tensors[: len(contribution.tensors)]
            (scaled,) = contribution.sums(rounding.factors_of_others(factors, one_by_one), own)
            (kernel,) = rounding.add_one_by_one(
                [projected(scaled)], factors, one_by_one, lambda index: [projected(form(own, index))]
            )
            gain = [
                layer.gamma * tf.squeeze(contributions.weighted_rows(factors, rows), 0)
                for rows in tensors[len(contribution.tensors) :]
            ]
            return [kernel, *gain]

        return contributions.Contribution(weights=weights, squared_norms=squared_norms, tensors=tensors, sums=sums)

    return convolution.kernel_routes(layer, sites, through)


def of_bias(layer, sites, scale, magnitude):
    """What rounding of the outputs adds to the sizes of terms, where the bias outweighs the convolution.

    The outputs are rounded to one eps of the bias. This error, times the length of the output's gradient, enters
    sum(g N).
    """
    microbatch = sites[0].microbatch
    outweighs = tf.math.divide_no_nan(tf.abs(microbatch.cast(tf.convert_to_tensor(layer.bias))), tf.abs(scale))
    largest = tf.minimum(tf.reduce_max(outweighs), LARGEST_BIAS)
    squares = [contributions.row_squares(tf.reshape(site.z, [-1, math.prod(site.z.shape[1:])])) for site in sites]
    return largest * tf.sqrt(magnitude * microbatch.sum_views(tf.add_n(squares)))


def along_normalized(layer, calls, microbatch, standardization, scale):
    """sum(g N) of each example and channel, [units, channels]."""
    bias = microbatch.cast(tf.convert_to_tensor(layer.bias)) if layer.use_bias else tf.zeros_like(scale)
    exact = tf.reduce_all((tf.abs(bias) <= LARGEST_BIAS * tf.abs(scale)) & (scale != 0))

    def one(call):
        z = microbatch.cast(convolution_site.channels_last(layer, call.tap_gradients[0]))

        def product(outputs):
            outputs = microbatch.cast(convolution_site.channels_last(layer, outputs))
            flat = tf.reshape(z * outputs, [-1, math.prod(z.shape[1:-1]), z.shape[-1]])
            return microbatch.sum_views(tf.reduce_sum(flat, axis=1))

        def from_outputs():
            flat = tf.reshape(z, [-1, math.prod(z.shape[1:-1]), z.shape[-1]])
            of_bias = microbatch.sum_views(tf.reduce_sum(flat, axis=1)) * bias
            return (product(call.saved["outputs"]) - of_bias) / scale

        def from_inputs():
            inputs = microbatch.cast(call.saved["inputs"])
            return product(convolution.convolve(layer, inputs, standardization.normalized))

        # Outputs in a compute dtype of fewer bits are too coarse for norms.
        rounded = call.saved["outputs"].dtype != microbatch.dtype
        return from_inputs() if rounded else tf.cond(exact, from_outputs, from_inputs)

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
