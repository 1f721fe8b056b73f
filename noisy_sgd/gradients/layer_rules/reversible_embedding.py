"""ReversibleEmbedding: looks rows of E up, and projects back onto them, z_s = E h_s; with or without tied weights.

    lookup       dL_i/dE = sum_t e_{id_t} r_t^T          r_t the gradient at the row of id_t
    projection   dL_i/dE = sum_s dz_s h_s^T

Tied, the gradient is the sum of both, and its squared norm has a cross term, 2 sum_{s,t} dz_s[id_t] <h_s, r_t>. So both
count as positions of one product, whose first factors are dz_s and the unit vectors e_{id_t}.

Covered by tests/gradients/layer_rules/reversible_embedding_test.py.
"""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import keras_internals
from noisy_sgd.gradients.layer_rules import embedding
from noisy_sgd.gradients.layer_rules.shared import contributions, positions, registry, rounding


def forward(tape, layer, inputs, reverse=False):
    if not reverse:
        traced = embedding.forward(tape, layer, inputs)
        if layer.mask_zero:
            # The layer leaves its mask in its own call, not in `compute_mask`.
            keras_internals.attach_mask(traced.outputs, ops.not_equal(inputs, 0))
        return dataclasses.replace(traced, saved={"ids": traced.saved})
    weight = ops.transpose(registry.constant(layer.embeddings)) if layer.tie_weights else None
    if weight is None:
        weight = registry.constant(layer.reverse_embeddings)
    if layer.reverse_dtype is not None:
        inputs, weight = ops.cast(inputs, layer.reverse_dtype), ops.cast(weight, layer.reverse_dtype)
    outputs = logits = tape.tap(ops.matmul(inputs, weight))
    if layer.logit_soft_cap is not None:
        outputs = ops.multiply(ops.tanh(ops.divide(logits, layer.logit_soft_cap)), layer.logit_soft_cap)
    return registry.Traced(outputs=outputs, taps=[logits], saved={"inputs": inputs})


def gradients(layer, calls, microbatch):
    lookups = [call for call in calls if "ids" in call.saved]
    projections = [call for call in calls if "inputs" in call.saved]
    table, width = layer.embeddings, layer.embeddings.shape[-1]
    back = table if layer.tie_weights else layer.reverse_embeddings
    h = _positions([call.saved["inputs"] for call in projections], width, microbatch)
    z = _positions([call.tap_gradients[0] for call in projections], layer.input_dim, microbatch)
    lookups = [dataclasses.replace(call, saved=call.saved["ids"]) for call in lookups]
    if not (layer.tie_weights and table.trainable and lookups and projections):
        groups = embedding.gradients(layer, lookups, microbatch) if lookups and table.trainable else []
        if projections and back.trainable:
            a, b = (z, h) if layer.tie_weights else (h, z)
            groups.append(positions.routes(back, a, b, microbatch, lambda sums: sums[0], as_formed=True))
        return groups
    return [_tied(table, embedding.rows_by_id(lookups, width, microbatch), z, h, microbatch)]


def _tied(table, looked_up, z, h, microbatch):
    """The routes to the contribution of a table from the rows that were looked up, and the projections onto it."""
    size, width = table.shape
    ids, rows = looked_up
    # Ids outside the table raise no error under XLA and on a GPU. They are in no sum, so they may be in no norm.
    inside = (ids >= 0) & (ids < size)
    ids, rows = tf.where(inside, ids, -1), tf.where(inside[..., None], rows, tf.zeros([], rows.dtype))

    def form(rows, z, h, ids):
        """The gradients of some examples, [n, size, width]; the rows of an id of -1 are zero."""
        count = tf.shape(ids)[0]
        places = tf.maximum(ids, 0) + size * tf.range(count, dtype=ids.dtype)[:, None]
        of_rows = tf.math.unsorted_segment_sum(tf.reshape(rows, [-1, width]), tf.reshape(places, [-1]), count * size)
        return tf.matmul(z, h, transpose_a=True) + tf.reshape(of_rows, [count, size, width])

    def one(index, rows, z, h):
        return form(*(tf.gather(tensor, index)[None] for tensor in (rows, z, h, ids)))[0]

    def exactly(index):
        return tf.reduce_sum(tf.square(one(index, rows, z, h)))

    def both(squares, sizes):
        squared_norms, one_by_one = rounding.guarded_norms(squares, sizes, exactly, microbatch)

        def sums(factors, tensors):
            rows, z, h = tensors
            together = rounding.factors_of_others(factors, one_by_one)[:, None, None]
            flat = [tf.reshape(tensor, [-1, tensor.shape[-1]]) for tensor in (z * together, h)]
            total = tf.matmul(*flat, transpose_a=True) + embedding.sum_rows(ids, rows * together, size)
            return rounding.add_one_by_one([total], factors, one_by_one, lambda index: [one(index, rows, z, h)])

        return contributions.Contribution(weights=[table], squared_norms=squared_norms, tensors=[rows, z, h], sums=sums)

    def lengths(squares):
        return tf.sqrt(rounding.not_vanished(squares, microbatch))

    squares_of = {name: rounding.squared_lengths(one, microbatch) for name, one in (("z", z), ("h", h), ("r", rows))}

    def formed_twice():
        squares = contributions.row_squares(tf.reshape(form(rows, z, h, ids), [-1, size * width]))
        products = tf.reduce_sum(lengths(squares_of["z"]) * lengths(squares_of["h"]), axis=1)
        in_all = products + tf.reduce_sum(lengths(squares_of["r"]), axis=1)
        return both(squares, rounding.Sizes(terms=squares, lengths=in_all, running=None, positions=count))

    def gram():
        # The ids of an example's rows are distinct.
        across = tf.gather(z, tf.maximum(ids, 0), axis=2, batch_dims=1)
        alike = tf.eye(tf.shape(ids)[1], batch_shape=tf.shape(ids)[:1], dtype=z.dtype)
        first = tf.concat([tf.matmul(z, z, transpose_b=True), across], axis=2)
        second = tf.concat([tf.linalg.matrix_transpose(across), alike], axis=2)
        b = tf.concat([h, rows], axis=1)
        squares = (
            tf.concat([squares_of["z"], tf.ones_like(squares_of["r"])], axis=1),
            tf.concat([squares_of["h"], squares_of["r"]], axis=1),
        )
        inner = tf.concat([first, second], axis=1), tf.matmul(b, b, transpose_b=True)
        return both(*rounding.squares_of_products(*inner, squares, microbatch))

    count = None if z.shape[1] is None or rows.shape[1] is None else z.shape[1] + rows.shape[1]
    assumed = rounding.ASSUMED_POSITIONS if count is None else count
    units, bytes_ = microbatch.assumed_units, microbatch.dtype.size
    per_flop = contributions.SECONDS_PER_SMALL_FLOP[microbatch.device]
    per_byte = contributions.SECONDS_PER_BYTE[microbatch.device]
    product = assumed * size * width
    full = product * contributions.SECONDS_PER_FLOP[microbatch.device]
    gradient_bytes, gram_bytes = size * width * bytes_, assumed**2 * bytes_
    form_seconds = product * per_flop + 5 * gradient_bytes * per_byte
    gram_seconds = assumed**2 * (size / 2 + 2 * width) * per_flop + 6 * gram_bytes * per_byte
    return [
        contributions.Route(
            name="per_example",
            seconds=units * (form_seconds + gradient_bytes * per_byte),
            kept_bytes=units * gradient_bytes,
            build=lambda: contributions.kept(table, form(rows, z, h, ids)),
        ),
        contributions.Route(
            name="formed_twice",
            seconds=units * (form_seconds + full),
            kept_bytes=0.0,
            temporary_bytes=2 * units * gradient_bytes,
            build=formed_twice,
        ),
        contributions.Route(
            name="gram",
            seconds=units * (gram_seconds + full),
            kept_bytes=0.0,
            temporary_bytes=4 * units * gram_bytes,
            build=gram,
        ),
    ]


def _positions(tensors, channels, microbatch):
    """[units * views, ..., channels] of every call -> [units, positions of all, channels]; None of no call."""
    parts = [embedding.by_unit(microbatch.cast(tensor), [channels], microbatch) for tensor in tensors]
    return tf.concat(parts, axis=1) if parts else None


rule = registry.Rule(forward=forward, gradients=gradients)
registry.register(keras.layers.ReversibleEmbedding, rule)
# KerasHub's is a subclass that changes nothing.
registry.register_name("keras_hub", ["ReversibleEmbedding"], rule)
