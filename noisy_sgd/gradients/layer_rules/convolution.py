"""Conv1D, Conv2D, Conv3D and DepthwiseConv1D, DepthwiseConv2D, with every option.

    dL_i/dW[o] = sum_t x_i[stride * t + dilation * o] dz_i[t]^T          dL_i/db = sum_t dz_i[t]

Per-example gradients come from `forming`. Where one gradient is large compared to the number of positions, inner
products between positions give the norm, and the library's kernel gives the sum.

Covered by tests/gradients/layer_rules/rules_test.py and bound_test.py.
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
    """Applies bias and activation after a convolution; taps the gradient between them."""
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


def gradients(layer, calls, microbatch):
    check_sizes(layer, calls)
    groups = []
    if layer.kernel.trainable:
        groups.append(kernel_routes(layer, [convolution_site.Site(layer, call, microbatch) for call in calls]))
    groups.extend(bias_contribution(layer, calls, microbatch))
    return groups


def check_sizes(layer, calls):
    """Refuses inputs whose sizes the trace does not know.

    Raises:
        NoRuleError: if a size other than the number of examples is unknown.
    """
    for call in calls:
        for tensor in (call.saved["inputs"], call.tap_gradients[0]):
            if None in tensor.shape[1:]:
                raise registry.NoRuleError(
                    layer, f"it is called on images or sequences of unknown size, of shape {tensor.shape}"
                )


def bias_contribution(layer, calls, microbatch):
    """The contribution of the bias; none if there is no trainable bias."""
    if not (layer.use_bias and layer.bias.trainable):
        return []
    per_call = []
    for call in calls:
        gradient = microbatch.cast(convolution_site.channels_last(layer, call.tap_gradients[0]))
        flat = tf.reshape(gradient, [-1, math.prod(gradient.shape[1:-1]), gradient.shape[-1]])
        per_call.append(microbatch.sum_views(tf.reduce_sum(flat, axis=1)))
    return [contributions.kept(layer.bias, tf.add_n(per_call))]


def kernel_routes(layer, sites, through=None):
    """The routes to the contribution of the kernel, from all calls of the layer.

    Args:
        layer: the layer.
        sites: the layer's calls.
        through: through(contribution, sizes, form) -> contribution with guarded norms. The contribution has the
            computed squared norms; sizes are those of their terms, None where norms and sums come from the same
            gradients; form(tensors of the contribution, index of an example) -> the example's gradient, in the
            kernel's shape. Defaults to `guarded`.
    """
    by_calls = forming.by_calls(sites)
    microbatch = sites[0].microbatch
    shape = tuple(layer.kernel.shape)
    through = guarded(microbatch) if through is None else through

    def per_example():
        if by_calls:
            (rows,) = forming.each(sites, lambda rows: [rows], [[math.prod(shape)]])
            contribution = contributions.kept_together([layer.kernel], [rows])
            return through(contribution, None, lambda tensors, index: tf.reshape(tf.gather(tensors[0], index), shape))
        contribution = contributions.kept_rows(layer.kernel, forming.pieces(sites), sites[0].arrange)
        return through(
            contribution, None, lambda tensors, index: sites[0].arrange([tf.gather(rows, index) for rows in tensors])
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


def guarded(microbatch):
    """The default of `kernel_routes`: no rounding makes an example's part of the sum longer than its bound."""

    def through(contribution, sizes, form):
        if sizes is None:
            return contribution

        def exactly(index):
            return tf.reduce_sum(tf.square(form(contribution.tensors, index)))

        squares, one_by_one = rounding.guarded_norms(contribution.squared_norms, sizes, exactly, microbatch)

        def sums(factors, tensors):
            totals = contribution.sums(rounding.factors_of_others(factors, one_by_one), tensors)
            return rounding.add_one_by_one(totals, factors, one_by_one, lambda index: [form(tensors, index)])

        return dataclasses.replace(contribution, squared_norms=squares, sums=sums)

    return through


def sizes_of_formed(sites, terms, channel_scale=None):
    """The sizes of terms where squared norms are of formed gradients and sums are one product over the batch."""
    lengths = rounding.over_blocks(tf.add_n([site.lengths(channel_scale) for site in sites]))
    positions = sum(site.positions for site in sites)
    return rounding.Sizes(terms=terms, lengths=lengths, running=None, positions=positions)


def from_both(layer, sites, squared_norms):
    """The contribution of the kernel from inputs and factor-scaled output gradients."""
    microbatch = sites[0].microbatch

    def sums(factors, tensors):
        scaled = [scale_examples(factors, tensor, microbatch) for tensor in tensors[1::2]]
        return [tf.add_n([site.full(x, z) for site, x, z in zip(sites, tensors[::2], scaled, strict=True)])]

    tensors = [tensor for site in sites for tensor in (site.x, site.z)]
    return contributions.Contribution(weights=[layer.kernel], squared_norms=squared_norms, tensors=tensors, sums=sums)


def scale_examples(factors, tensor, microbatch):
    """[units] times [units * views, ...], example by example."""
    per_view = tf.repeat(factors, microbatch.views) if microbatch.views > 1 else factors
    return tensor * tf.reshape(per_view, [-1, *[1] * (tensor.shape.rank - 1)])


def refusal(layer):
    if layer.padding not in ("valid", "same", "causal"):
        return f"its padding is {layer.padding!r}"
    return None


rule = registry.Rule(forward=forward, gradients=gradients, refusal=refusal)
for layer_class in (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
):
    registry.register(layer_class, rule)
