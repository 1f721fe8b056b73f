"""Weights that meet every position of an example in one matrix product: g_i = sum_t a_{i,t} b_{i,t}^T.

a is the layer's input [units, T, p], b the gradient at its output [units, T, q]; with blocks of channels,
[units, blocks, T, p] and [units, blocks, T, q]. The squared norm of g_i (Goodfellow 2015; Li et al. 2022 for T > 1):

    ||g_i||^2 = sum_{s,t} <a_s, a_t> <b_s, b_t>     2 T^2 (p + q) operations (gram)
              = ||sum_t a_t b_t^T||^2               2 T p q operations       (per_example)

    routes = positions.routes(layer.kernel, a, b, microbatch, lambda sums: tf.reshape(sums, layer.kernel.shape))

Covered by tests/gradients/layer_rules/rules_test.py.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients.layer_rules.shared import contributions, rounding


def routes(
    weight, a: tf.Tensor, b: tf.Tensor, microbatch: contributions.Microbatch, arrange, *, as_formed: bool = False
) -> list[contributions.Route]:
    """The routes to the contribution of one weight.

    Args:
        weight: the Keras variable.
        a: inputs [units, (blocks,) T, p], in the precision of norms.
        b: output gradients [units, (blocks,) T, q].
        microbatch: the microbatch.
        arrange: arrange(gradient [1, (blocks,) p, q]) -> the shape of the weight.
        as_formed: whether the weight has the shape [p, q] itself. Defaults to False.

    Returns:
        Its routes. A single position has only one route.
    """
    blocks = math.prod(a.shape[1:-2])
    count, p, q = a.shape[-2], a.shape[-1], b.shape[-1]
    if count == 1:
        return [
            contributions.Route(
                name="gram",
                seconds=0.0,
                kept_bytes=0.0,
                # An accelerator's matrix product may round its factors, so that norms would come out too small.
                build=lambda: one_position(weight, a, b, arrange, masked=as_formed and microbatch.device == "cpu"),
            )
        ]
    positions = 1024 if count is None else count
    per_flop = contributions.SECONDS_PER_SMALL_FLOP[microbatch.device]
    per_byte = contributions.SECONDS_PER_BYTE[microbatch.device]
    width = a.dtype.size
    gradient_bytes = blocks * p * q * width
    form = 2 * blocks * positions * p * q * per_flop + 3 * gradient_bytes * per_byte
    full = 2 * blocks * positions * p * q * contributions.SECONDS_PER_FLOP[microbatch.device]
    full += 2 * positions * blocks * q * width * per_byte
    gram_bytes = blocks * positions**2 * width
    gram = 2 * blocks * positions**2 * (p + q) * per_flop + 3 * gram_bytes * per_byte
    units = microbatch.assumed_units
    return [
        contributions.Route(
            name="per_example",
            seconds=units * (form + gradient_bytes * per_byte),
            kept_bytes=units * gradient_bytes,
            build=lambda: per_example(weight, a, b, arrange),
        ),
        contributions.Route(
            name="formed_twice",
            seconds=units * (form + full),
            kept_bytes=0.0,
            temporary_bytes=units * gradient_bytes,
            build=lambda: from_both(weight, a, b, arrange, *formed_norms(a, b, microbatch)),
        ),
        contributions.Route(
            name="gram",
            seconds=units * (gram + full),
            kept_bytes=0.0,
            temporary_bytes=2 * units * gram_bytes,
            build=lambda: from_both(weight, a, b, arrange, *gram_norms(a, b, microbatch)),
        ),
    ]


def one_position(weight, a, b, arrange, *, masked: bool = False) -> contributions.Contribution:
    """T = 1: the norm of an outer product is the product of the norms (of each block).

    With `masked` also that of m * a b^T, whose square is sum_{jk} m_jk a_j^2 b_k^2 for m of 0 and 1.
    """
    squares = tf.square(_lengths(a) * _lengths(b))
    found = from_both(weight, a, b, arrange, tf.reduce_sum(squares, axis=list(range(1, squares.shape.rank))))
    return dataclasses.replace(found, squares_at=lambda masks: _squares_at(masks[0], a, b)) if masked else found


def _squares_at(mask, a, b):
    """[units, 1, p], [units, 1, q] -> the squared norms of mask * a b^T, [units]; never too small."""
    a, b = tf.squeeze(a, 1), tf.squeeze(b, 1)
    lengths = [_lengths(one) for one in (a, b)]
    tiny = a.dtype.as_numpy_dtype(np.finfo(a.dtype.as_numpy_dtype).tiny)
    shares = [tf.square(one / tf.maximum(n, tiny)[:, None]) for one, n in zip((a, b), lengths, strict=True)]
    part = tf.reduce_sum(tf.matmul(shares[0], tf.cast(mask, a.dtype)) * shares[1], axis=1)
    # Each of the p q terms, all at most 1, may have underflowed.
    underflow = 4 * tiny * math.prod(mask.shape)
    return tf.square(lengths[0] * lengths[1]) * (part + underflow)


def per_example(weight, a, b, arrange) -> contributions.Contribution:
    """Forms every example's gradient and keeps it."""
    formed = _form(a, b)
    rows = _rows(formed)

    def sums(factors, tensors):
        return [arrange(tf.reshape(contributions.weighted_rows(factors, tensors[0]), [1, *formed.shape[1:]]))]

    return contributions.Contribution(
        weights=[weight], squared_norms=contributions.row_squares(rows), tensors=[rows], sums=sums
    )


def from_both(weight, a, b, arrange, squared_norms, one_by_one=None) -> contributions.Contribution:
    """Sums from inputs and factor-scaled output gradients: one ordinary matrix product over examples and positions.

    `one_by_one` holds the indices of the examples whose gradients are formed and added one by one, see `rounding`.
    """

    def sums(factors, tensors):
        a, b = tensors
        together = rounding.factors_of_others(factors, one_by_one)
        scaled = b * tf.reshape(together, [-1, *[1] * (b.shape.rank - 1)])
        if a.shape.rank == 3:
            rows, columns = (tf.reshape(one, [-1, one.shape[-1]]) for one in (a, scaled))
            total = tf.matmul(rows, columns, transpose_a=True)
        else:
            total = tf.einsum("ukta,uktb->kab", a, scaled)
        return rounding.add_one_by_one(
            [arrange(total[None])], factors, one_by_one, lambda index: [arrange(_form_one(a, b, index)[None])]
        )

    return contributions.Contribution(weights=[weight], squared_norms=squared_norms, tensors=[a, b], sums=sums)


def gram_norms(a, b, microbatch):
    """Squared norms from inner products between positions, and the examples formed one by one."""
    inputs, gradients = (tf.matmul(one, one, transpose_b=True) for one in (a, b))
    squares = tuple(rounding.squared_lengths(one, microbatch) for one in (a, b))
    products, sizes = rounding.squares_of_products(inputs, gradients, squares, microbatch)
    return rounding.guarded_norms(products, sizes, _exactly(a, b), microbatch)


def formed_norms(a, b, microbatch):
    """Squared norms of gradients that are not kept, and the examples formed one by one."""
    squares = contributions.row_squares(_rows(_form(a, b)))
    inputs, gradients = (
        tf.sqrt(rounding.not_vanished(rounding.squared_lengths(one, microbatch), microbatch)) for one in (a, b)
    )
    lengths = rounding.over_blocks(tf.reduce_sum(inputs * gradients, axis=-1))
    sizes = rounding.Sizes(terms=squares, lengths=lengths, running=None, positions=a.shape[-2])
    return rounding.guarded_norms(squares, sizes, _exactly(a, b), microbatch)


def _exactly(a, b):
    return lambda index: tf.reduce_sum(tf.square(_form_one(a, b, index)))


def _form_one(a, b, index):
    return _form(tf.gather(a, index), tf.gather(b, index))


def _form(a, b):
    return tf.matmul(a, b, transpose_a=True)


def _lengths(vectors):
    """[..., n] -> their norms; scaled by the largest entry, so that no square overflows or underflows."""
    tiny = vectors.dtype.as_numpy_dtype(np.finfo(vectors.dtype.as_numpy_dtype).tiny)
    largest = tf.maximum(tf.reduce_max(tf.abs(vectors), axis=-1, keepdims=True), tiny)
    return tf.squeeze(largest, -1) * tf.sqrt(tf.reduce_sum(tf.square(vectors / largest), axis=-1))


def _rows(tensor):
    if None in tensor.shape[1:]:
        return tf.reshape(tensor, [tf.shape(tensor)[0], tf.reduce_prod(tf.shape(tensor)[1:])])
    return tf.reshape(tensor, [-1, math.prod(tensor.shape[1:])])
