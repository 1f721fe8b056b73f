"""Conv1D, Conv2D, Conv3D and DepthwiseConv1D, DepthwiseConv2D with every option of theirs.

    dL_i/dW[o] = sum_t x_i[stride * t + dilation * o] dz_i[t]^T          dL_i/db = sum_t dz_i[t]

Per-example gradients come from `forming`. Where even one gradient is large for the positions there are, inner products
between positions give the norm, and the library's kernel the sum.
"""

import dataclasses
import math

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import convolution_site
from noisy_sgd.gradients.layer_rules.shared import contributions, forming, registry, rounding


def forward(tape, layer, inputs):
    outputs = convolve(layer, inputs, registry.constant(layer.kernel))
    return finish(tape, layer, inputs, outputs)


def finish(tape, layer, inputs, outputs):
    """Bias and activation behind a convolution; taps the gradient between them."""
    if layer.use_bias:
        shape = [1, -1, *[1] * layer.rank] if layer.data_format == "channels_first" else [-1]
        outputs = outputs + tf.reshape(tf.cast(registry.constant(layer.bias), outputs.dtype), shape)
    outputs = tape.tap(outputs)
    activated = outputs if layer.activation is None else layer.activation(outputs)
    return registry.Traced(outputs=activated, taps=[outputs], saved={"inputs": inputs})


def convolve(layer, inputs, kernel):
    """The layer's convolution alone, with a given kernel."""
    padding = layer.padding
    if padding == "causal":
        inputs = keras_internals.causally_padded(layer, inputs)
        padding = "valid"
    options = {"padding": padding, "dilation_rate": layer.dilation_rate, "data_format": layer.data_format}
    if convolution_site.is_depthwise(layer):
        return ops.depthwise_conv(inputs, kernel, strides=layer.strides, **options)
    return ops.conv(inputs, kernel, strides=list(layer.strides), **options)


def gradients(layer, calls, setting):
    check_sizes(layer, calls)
    groups = []
    if layer.kernel.trainable:
        groups.append(kernel_routes(layer, [convolution_site.Site(layer, call, setting) for call in calls]))
    groups.extend(bias_contribution(layer, calls, setting))
    return groups


def check_sizes(layer, calls):
    """Refuses inputs whose sizes the trace does not know.

    Raises:
        NoRuleError: where a size other than the number of examples is unknown.
    """
    for call in calls:
        for tensor in (call.saved["inputs"], call.tap_gradients[0]):
            if None in tensor.shape[1:]:
                raise registry.NoRuleError(
                    layer, f"it is called on images or sequences of unknown size, of shape {tensor.shape}"
                )


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


def kernel_routes(layer, sites, through=None):
    """The routes to the contribution of the kernel, from all calls of the layer.

    Args:
        layer: the layer.
        sites: its calls.
        through: through(contribution, sizes, form) -> contribution, for squared norms as they were added up;
            form(tensors of the contribution, index of an example) -> its gradient, of the kernel's shape; sizes are
            None where norms and sums come from the same gradients. Defaults to `settled`.
    """
    by_calls = forming.by_calls(sites)
    setting = sites[0].setting
    shape = tuple(layer.kernel.shape)
    through = settled(setting) if through is None else through

    def per_example():
        if by_calls:
            (rows,) = forming.each(sites, lambda rows: [rows], [[math.prod(shape)]])
            found = contributions.kept_together([layer.kernel], [rows])
            return through(found, None, lambda tensors, index: tf.reshape(tf.gather(tensors[0], index), shape))
        found = contributions.kept_rows(layer.kernel, forming.pieces(sites), sites[0].arrange)
        return through(
            found, None, lambda tensors, index: sites[0].arrange([tf.gather(rows, index) for rows in tensors])
        )

    def one(tensors, index):
        return tf.reshape(forming.one(sites, index, tensors), shape)

    def formed_twice():
        if by_calls:
            (squares,) = forming.each(sites, lambda rows: [contributions.row_squares(rows)], [[]])
        else:
            squares = tf.add_n([contributions.row_squares(rows) for rows in forming.pieces(sites)])
        return through(from_both(layer, sites, squares), sizes_of_formed(sites, squares), one)

    def gram():
        squares, sizes = sites[0].gram()
        return through(from_both(layer, sites, squares), sizes, one)

    routes = forming.routes(sites, per_example, formed_twice)
    if len(sites) == 1 and sites[0].blocks == 1:
        (site,) = sites
        routes.append(
            contributions.Route(
                name="gram",
                seconds=site.gram_seconds + site.full_seconds,
                kept_bytes=0.0,
                temporary_bytes=site.gram_bytes,
                build=gram,
            )
        )
    return routes


def settled(setting):
    """The default of `kernel_routes`: rounding makes no example's part of the sum longer than its bound."""

    def through(contribution, sizes, form):
        if sizes is None:
            return contribution

        def exactly(index):
            return tf.reduce_sum(tf.square(form(contribution.tensors, index)))

        squares, apart = rounding.settled(contribution.squared_norms, sizes, exactly, setting)

        def sums(factors, tensors):
            totals = contribution.sums(rounding.without_those_apart(factors, apart), tensors)
            return rounding.with_those_apart(totals, factors, apart, lambda index: [form(tensors, index)])

        return dataclasses.replace(contribution, squared_norms=squares, sums=sums)

    return through


def sizes_of_formed(sites, terms, channel_scale=None):
    """The sizes behind squared norms that are not inner products, and sums that are one product over the batch."""
    lengths = rounding.over_blocks(tf.add_n([site.lengths(channel_scale) for site in sites]))
    positions = sum(site.positions for site in sites)
    return rounding.Sizes(terms=terms, lengths=lengths, running=None, positions=positions)


def from_both(layer, sites, squared_norms):
    """The contribution of the kernel from inputs and factor-scaled output gradients."""
    setting = sites[0].setting

    def sums(factors, tensors):
        scaled = [scale_examples(factors, tensor, setting) for tensor in tensors[1::2]]
        return [tf.add_n([site.full(x, z) for site, x, z in zip(sites, tensors[::2], scaled, strict=True)])]

    tensors = [tensor for site in sites for tensor in (site.x, site.z)]
    return contributions.Contribution(weights=[layer.kernel], squared_norms=squared_norms, tensors=tensors, sums=sums)


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
