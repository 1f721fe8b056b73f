"""Forms a convolution's kernel gradients example by example, in the cheaper of two ways, and builds routes from it.

On a CPU, the fastest way for a large layer is the library's own kernel for the filter's gradient, called once per
example in a loop. Only a few examples' gradients exist at once, in the cache, and the graph does not grow with the
number of examples. The gradients of a small layer are batched matrix products. So are all gradients on accelerators,
which run no loop over examples.

    (squared_norms,) = forming.each(sites, lambda rows: [contributions.row_squares(rows)], [[]])
    row = forming.one(sites, 0)

Covered by tests/gradients/layer_rules/rules_test.py and bound_test.py.
"""

import math

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients.layer_rules.shared import contributions

# One call of the library's kernel does not use all cores.
CALLS_AT_ONCE = 4


def by_calls(sites) -> bool:
    """Whether the library's kernel forms the gradients faster than matrix products."""
    return sum(site.call_seconds for site in sites) < sum(site.product_seconds for site in sites)


def pieces(sites) -> list[tf.Tensor]:
    """The gradients by matrix products, in pieces [units, any size], which `sites[0].arrange` puts together."""
    return [tf.add_n(parts) for parts in zip(*(site.by_products() for site in sites), strict=True)]


def one(sites, index, tensors=None) -> tf.Tensor:
    """The gradient of the example of that index by the library's kernel, [1, size of the kernel].

    Args:
        sites: all calls of the layer.
        index: the example's index.
        tensors: inputs and output gradients to use instead of the calls' own: x and z of each call in turn.
    """
    views = sites[0].microbatch.views
    tensors = [tensor for site in sites for tensor in (site.x, site.z)] if tensors is None else tensors

    ranks = {tensor.shape.rank for tensor in tensors}
    starts = {rank: index * np.array([views] + [0] * (rank - 1), np.int32) for rank in ranks}
    parts = [tf.slice(tensor, starts[tensor.shape.rank], [views, *tensor.shape[1:]]) for tensor in tensors]
    gradients = [site.full(x, z) for site, x, z in zip(sites, parts[::2], parts[1::2], strict=True)]
    return tf.reshape(
        gradients[0] if len(gradients) == 1 else tf.add_n(gradients), [1, math.prod(sites[0].layer.kernel.shape)]
    )


def each(sites, make, shapes) -> list[tf.Tensor]:
    """Applies `make` to every example's gradient.

    Args:
        sites: all calls of the layer, whose pieces are not folded.
        make: make(gradients [n, size of the kernel]) -> tensors [n, *shape], for any number n of examples.
        shapes: one per tensor.

    Returns:
        Tensors [units, *shape].
    """
    if not by_calls(sites):
        return make(tf.concat(pieces(sites), axis=1))
    microbatch = sites[0].microbatch

    def body(index, arrays):
        rows = make(one(sites, index))
        return index + 1, [array.write(index, tf.squeeze(row, 0)) for array, row in zip(arrays, rows, strict=True)]

    count = tf.shape(sites[0].z)[0] // microbatch.views if microbatch.units is None else microbatch.units
    arrays = [tf.TensorArray(microbatch.dtype, count, element_shape=shape) for shape in shapes]
    _, arrays = tf.while_loop(
        lambda index, _: index < count, body, (tf.constant(0), arrays), parallel_iterations=CALLS_AT_ONCE
    )
    stacked = [array.stack() for array in arrays]
    return [tf.ensure_shape(rows, [microbatch.units, *shape]) for rows, shape in zip(stacked, shapes, strict=True)]


def routes(sites, per_example, formed_twice, extra_bytes: float = 0.0) -> list[contributions.Route]:
    """The two routes that form gradients, with their costs.

    Args:
        sites: all calls of the layer.
        per_example: builds the contribution that keeps the gradients.
        formed_twice: builds the contribution that does not keep them.
        extra_bytes: memory traffic beside forming and squaring the gradients. Defaults to 0.
    """
    microbatch = sites[0].microbatch
    per_byte = contributions.SECONDS_PER_BYTE[microbatch.device]
    gradient_bytes = microbatch.assumed_units * math.prod(sites[0].layer.kernel.shape) * microbatch.dtype.size
    calls = by_calls(sites)
    form = sum(site.call_seconds if calls else site.product_seconds for site in sites) + extra_bytes * per_byte
    full = sum(site.full_seconds for site in sites)
    # Gradients from a loop are stacked to be kept. The squares read the gradients, and are themselves written and read
    # where the gradients do not fit in the cache. The sum reads the gradients once more.
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
