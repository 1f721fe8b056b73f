"""A convolution's kernel gradients formed example by example, by the cheaper of two ways, and the routes by them.

On a CPU a large layer's are fastest formed by the library's own kernel for the filter's gradient, called once an
example in a loop: only a few examples' gradients exist at once, in the cache, and the graph does not grow with the
examples. Small ones, and all on accelerators, where no loop over examples may be, are batched matrix products.

    (squared_norms,) = forming.each(sites, lambda rows: [contributions.row_squares(rows)], [[]])
    row = forming.one(sites, 0)
"""

import math

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients.layer_rules.shared import contributions

# One call of the library's kernel does not fill the cores.
CALLS_AT_ONCE = 4


def by_calls(sites) -> bool:
    """Whether the library's kernel forms the gradients cheaper than matrix products."""
    return sum(site.call_seconds for site in sites) < sum(site.product_seconds for site in sites)


def pieces(sites) -> list[tf.Tensor]:
    """The gradients by matrix products, in pieces [units, any size], which `sites[0].arrange` puts together."""
    return [tf.add_n(found) for found in zip(*(site.by_products() for site in sites), strict=True)]


def one(sites, index, tensors=None) -> tf.Tensor:
    """The gradient of the example of that index by the library's kernel, [1, size of the kernel].

    Args:
        sites: all calls of the layer.
        index: of the example.
        tensors: the inputs and output gradients to take in place of the calls' own: x and z of each in turn.
    """
    views = sites[0].setting.views
    tensors = [tensor for site in sites for tensor in (site.x, site.z)] if tensors is None else tensors

    ranks = {tensor.shape.rank for tensor in tensors}
    starts = {rank: index * np.array([views] + [0] * (rank - 1), np.int32) for rank in ranks}
    parts = [tf.slice(tensor, starts[tensor.shape.rank], [views, *tensor.shape[1:]]) for tensor in tensors]
    found = [site.full(x, z) for site, x, z in zip(sites, parts[::2], parts[1::2], strict=True)]
    return tf.reshape(found[0] if len(found) == 1 else tf.add_n(found), [1, math.prod(sites[0].layer.kernel.shape)])


def each(sites, make, shapes) -> list[tf.Tensor]:
    """What `make` makes of every example's gradient.

    Args:
        sites: all calls of the layer, whose pieces are not folded.
        make: make(gradients [n, size of the kernel]) -> tensors [n, *shape], for any number n of examples.
        shapes: one a tensor.

    Returns:
        Tensors [units, *shape].
    """
    if not by_calls(sites):
        return make(tf.concat(pieces(sites), axis=1))
    setting = sites[0].setting

    def body(index, arrays):
        found = make(one(sites, index))
        return index + 1, [array.write(index, tf.squeeze(row, 0)) for array, row in zip(arrays, found, strict=True)]

    count = tf.shape(sites[0].z)[0] // setting.views if setting.units is None else setting.units
    arrays = [tf.TensorArray(setting.dtype, count, element_shape=shape) for shape in shapes]
    _, arrays = tf.while_loop(
        lambda index, _: index < count, body, (tf.constant(0), arrays), parallel_iterations=CALLS_AT_ONCE
    )
    stacked = [array.stack() for array in arrays]
    return [tf.ensure_shape(rows, [setting.units, *shape]) for rows, shape in zip(stacked, shapes, strict=True)]


def routes(sites, per_example, formed_twice, extra_bytes: float = 0.0) -> list[contributions.Route]:
    """The two routes that form gradients, with what they cost.

    Args:
        sites: all calls of the layer.
        per_example: builds the contribution that keeps the gradients.
        formed_twice: builds the one that does not.
        extra_bytes: what is moved beside forming them and squaring them. Defaults to 0.
    """
    setting = sites[0].setting
    per_byte = contributions.SECONDS_PER_BYTE[setting.device]
    gradient_bytes = setting.assumed_units * math.prod(sites[0].layer.kernel.shape) * setting.dtype.size
    calls = by_calls(sites)
    form = sum(site.call_seconds if calls else site.product_seconds for site in sites) + extra_bytes * per_byte
    full = sum(site.full_seconds for site in sites)
    # To be kept, gradients from a loop are stacked. They are read for the squares, which are written and read where
    # they leave the cache; the sum reads gradients once more.
    stack, square = (2, 3) if calls else (0, 3)
    return [
        contributions.Route(
            name="per_example",
            seconds=form + (stack + square + 1) * gradient_bytes * per_byte,
            kept_bytes=gradient_bytes,
            build=per_example,
        ),
        contributions.Route(
            name="formed_twice",
            seconds=form + (1 if calls else square) * gradient_bytes * per_byte + full,
            kept_bytes=0.0,
            temporary_bytes=0.0 if calls else gradient_bytes,
            build=formed_twice,
        ),
    ]
