"""Conv1D, Conv2D, Conv3D and DepthwiseConv1D, DepthwiseConv2D with every option of theirs.

    dL_i/dW[o] = sum_t x_i[stride * t + dilation * o] dz_i[t]^T          dL_i/db = sum_t dz_i[t]

On a CPU the fastest way to a large layer's per-example gradient is the library's own kernel for the filter's gradient,
called once an example; small ones, and all on accelerators, where no loop over examples may be, are batched matrix
products of `windows` and output gradients. Where even one gradient is large for the positions there are, inner products
between positions give the norm, and the library's kernel the sum.
"""

import math

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd.gradients.layer_rules import contributions, convolution_site, registry


def forward(tape, layer, inputs):
    outputs = convolve(layer, inputs, registry.constant(layer.kernel))
    return finish(tape, layer, inputs, outputs)


def finish(tape, layer, inputs, outputs):
    """Bias and activation behind a convolution; taps the gradient between them."""
    if layer.use_bias:
        shape = [1, -1, *[1] * layer.rank] if layer.data_format == "channels_first" else [-1]
        outputs = outputs + tf.reshape(tf.cast(registry.constant(layer.bias), outputs.dtype), shape)
    tape.watch(outputs)
    activated = outputs if layer.activation is None else layer.activation(outputs)
    return registry.Traced(outputs=activated, taps=[outputs], saved={"inputs": inputs})


def convolve(layer, inputs, kernel):
    """The layer's convolution alone, with a given kernel."""
    padding = layer.padding
    if padding == "causal":
        inputs = ops.pad(inputs, layer._compute_causal_padding())
        padding = "valid"
    options = {"padding": padding, "dilation_rate": layer.dilation_rate, "data_format": layer.data_format}
    if convolution_site.is_depthwise(layer):
        return ops.depthwise_conv(inputs, kernel, strides=layer.strides, **options)
    return ops.conv(inputs, kernel, strides=list(layer.strides), **options)


def gradients(layer, calls, setting):
    groups = []
    if layer.kernel.trainable:
        groups.append(kernel_routes(layer, [convolution_site.Site(layer, call, setting) for call in calls], setting))
    groups.extend(bias_contribution(layer, calls, setting))
    return groups


def bias_contribution(layer, calls, setting):
    """The contribution of the bias, where there is one to train."""
    if not (layer.use_bias and layer.bias.trainable):
        return []
    per_call = []
    for call in calls:
        gradient = setting.cast(convolution_site.channels_last(layer, call.tap_gradients[0]))
        flat = tf.reshape(gradient, [-1, math.prod(gradient.shape[1:-1]), gradient.shape[-1]])
        per_call.append(setting.sum_views(tf.reduce_sum(flat, axis=1)))
    return [contributions.kept(layer.bias, tf.add_n(per_call))]


def kernel_routes(layer, sites, setting):
    """The routes to the contribution of the kernel, from all calls of the layer."""
    kernel = layer.kernel
    form_seconds, form, arrange = forming(sites)
    per_byte = contributions.SECONDS_PER_BYTE[setting.device]
    gradient_bytes = setting.assumed_units * math.prod(kernel.shape) * setting.dtype.size
    # A gradient is read for its square, the squares are written and read; the sum reads it once more.
    norm = form_seconds + 3 * gradient_bytes * per_byte
    full = sum(site.full_seconds for site in sites)

    def from_both(squared_norms):
        def sums(factors, tensors):
            scaled = [scale_examples(factors, tensor, setting) for tensor in tensors[1::2]]
            parts = [site.full(x, z) for site, x, z in zip(sites, tensors[::2], scaled, strict=True)]
            return [tf.add_n(parts)]

        tensors = [tensor for site in sites for tensor in (site.x, site.z)]
        return contributions.Contribution(weights=[kernel], squared_norms=squared_norms, tensors=tensors, sums=sums)

    routes = [
        contributions.Route(
            name="per_example",
            seconds=norm + gradient_bytes * per_byte,
            kept_bytes=gradient_bytes,
            build=lambda: contributions.kept_rows(kernel, form(), arrange),
        ),
        contributions.Route(
            name="formed_twice",
            seconds=norm + full,
            kept_bytes=0.0,
            build=lambda: from_both(tf.add_n([contributions.row_squares(rows) for rows in form()])),
        ),
    ]
    if len(sites) == 1 and sites[0].blocks == 1:
        site = sites[0]
        routes.append(
            contributions.Route(
                name="gram",
                seconds=site.gram_seconds + full,
                kept_bytes=0.0,
                build=lambda: from_both(site.gram_norms(site.z)),
            )
        )
    return routes


def forming(sites):
    """The cheaper way to form the kernel's per-example gradients.

    Returns:
        (seconds, function that returns them in pieces [units, any size], function from the pieces of one gradient to
        the shape of the kernel).
    """
    by_products = sum(site.product_seconds for site in sites)
    by_calls = sum(site.call_seconds for site in sites)
    shape = sites[0].layer.kernel.shape
    if by_calls < by_products:
        return (
            by_calls,
            lambda: [tf.add_n([site.by_calls() for site in sites])],
            lambda sums: tf.reshape(sums[0], shape),
        )

    def form():
        return [tf.add_n(pieces) for pieces in zip(*(site.by_products() for site in sites), strict=True)]

    return by_products, form, sites[0].arrange


def scale_examples(factors, tensor, setting):
    """[units] times [units * views, ...], example by example."""
    per_view = tf.repeat(factors, setting.views) if setting.views > 1 else factors
    return tensor * tf.reshape(per_view, [-1, *[1] * (tensor.shape.rank - 1)])


def refusal(layer):
    if layer.padding not in ("valid", "same", "causal"):
        return f"its padding is {layer.padding!r}"
    return None


for layer_class in (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
):
    registry.register(layer_class, registry.Rule(forward=forward, gradients=gradients, refusal=refusal))
