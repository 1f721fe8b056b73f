"""LSTM, GRU and SimpleRNN, from the gradients at the pre-activations of all time steps, z_t = x_t W + b + h_{t-1} U.

The inputs' part of z_t is one matrix product over all steps, taken before the loop over time; the gradient dz_t arrives
there. Then each kernel is one as in Dense, with time steps for positions:

    dL_i/dW = sum_t x_t dz_t^T      dL_i/dU = sum_t h_{t-1} dz_t^T      dL_i/db = sum_t dz_t

For the candidate of a GRU, the reset gate r_t multiplies h_{t-1} U and its bias (`reset_after`), so that the recurrent
side gets r_t * dz_t; or it multiplies h_{t-1}, which is then r_t * h_{t-1} in the sum.

The weights belong to the layer's cell, whose `call` does not run: the rule has the formulas of the three cells.

Covered by tests/gradients/layer_rules/recurrent_test.py.
"""

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd.gradients.layer_rules import embedding
from noisy_sgd.gradients.layer_rules.shared import contributions, positions, registry


def lstm_step(cell, z, states, recurrent):
    h, c = states
    i, f, g, o = tf.split(z + tf.matmul(h, recurrent["kernel"]), 4, axis=1)
    c = cell.recurrent_activation(f) * c + cell.recurrent_activation(i) * cell.activation(g)
    return [cell.recurrent_activation(o) * cell.activation(c), c], []


def gru_step(cell, z, states, recurrent):
    (h,), units = states, cell.units
    x_gates, x_candidate = z[:, : 2 * units], z[:, 2 * units :]
    if cell.reset_after:
        inner = tf.matmul(h, recurrent["kernel"])
        if cell.use_bias:
            inner += recurrent["bias"]
        gates = cell.recurrent_activation(x_gates + inner[:, : 2 * units])
        update, reset = tf.split(gates, 2, axis=1)
        candidate = cell.activation(x_candidate + reset * inner[:, 2 * units :])
    else:
        gates = cell.recurrent_activation(x_gates + tf.matmul(h, recurrent["kernel"][:, : 2 * units]))
        update, reset = tf.split(gates, 2, axis=1)
        candidate = cell.activation(x_candidate + tf.matmul(reset * h, recurrent["kernel"][:, 2 * units :]))
    return [update * h + (1 - update) * candidate], [reset]


def simple_step(cell, z, states, recurrent):
    outputs = z + tf.matmul(states[0], recurrent["kernel"])
    return [outputs if cell.activation is None else cell.activation(outputs)], []


# The step of a cell, and how many tensors it returns beside the states.
_STEPS = {
    keras.layers.LSTMCell: (lstm_step, 0),
    keras.layers.GRUCell: (gru_step, 1),
    keras.layers.SimpleRNNCell: (simple_step, 0),
}


def forward(tape, layer, sequences, initial_state=None, mask=None, training=False):
    cell = layer.cell
    if training and cell.dropout > 0:
        sequences = sequences * cell.get_dropout_mask(sequences[:, 0])[:, None]
        cell.reset_dropout_mask()
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    if mask is not None:
        mask = tf.cast(mask, tf.bool)
        mask = tf.squeeze(mask, 2) if mask.shape.rank == 3 else mask
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
        mask = None if mask is None else tf.reverse(mask, [1])
    if initial_state is None:
        initial_state = layer.get_initial_state(batch_size=ops.shape(sequences)[0])
    states = [tf.cast(state, cell.compute_dtype) for state in tf.nest.flatten(initial_state)]

    z = ops.matmul(sequences, _constant(cell.kernel, cell))
    recurrent = {"kernel": _constant(cell.recurrent_kernel, cell)}
    if cell.use_bias:
        bias = _constant(cell.bias, cell)
        z += bias[0] if _two_biases(cell) else bias
        recurrent["bias"] = bias[1] if _two_biases(cell) else None
    z = tape.tap(z)
    first = states[0]
    h, states, others = _loop(cell, z, states, mask, recurrent)
    outputs = h
    if mask is not None:
        # Before the first step that counts, Keras returns zeros and not the initial state.
        counts = mask if layer.zero_output_for_mask else tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
        outputs = tf.where(counts[:, :, None], h, tf.zeros_like(h))
    outputs = tf.cast(outputs if layer.return_sequences else outputs[:, -1], layer.compute_dtype)
    if layer.return_state:
        outputs = (outputs, *(tf.cast(state, layer.compute_dtype) for state in states))
    before = tf.concat([first[:, None], h[:, :-1]], axis=1)
    return registry.Traced(outputs=outputs, taps=[z], saved={"x": sequences, "h": before, "others": others})


def _loop(cell, z, states, mask, recurrent):
    """The states over time, from the inputs' part of all pre-activations [B, T, gates].

    Returns:
        (the first state after each step [B, T, units], the states after the last one, what the step returns beside them
        [B, T, units] each).
    """
    step, extra = _STEPS[type(cell)]
    length = tf.shape(z)[1] if z.shape[1] is None else z.shape[1]
    inputs = tf.TensorArray(z.dtype, length, element_shape=[z.shape[0], z.shape[2]])
    inputs = inputs.unstack(tf.transpose(z, [1, 0, 2]))
    counts = None
    if mask is not None:
        counts = tf.TensorArray(tf.bool, length, element_shape=[mask.shape[0], 1])
        counts = counts.unstack(tf.transpose(mask)[:, :, None])
    written = [tf.TensorArray(z.dtype, length, element_shape=[z.shape[0], cell.units]) for _ in range(1 + extra)]

    def body(time, states, written):
        found, others = step(cell, inputs.read(time), states, recurrent)
        if counts is not None:
            counted = counts.read(time)
            found = [tf.where(counted, new, old) for new, old in zip(found, states, strict=True)]
        found = [tf.ensure_shape(new, old.shape) for new, old in zip(found, states, strict=True)]
        pairs = zip(written, [found[0], *others], strict=True)
        return time + 1, found, [array.write(time, value) for array, value in pairs]

    _, states, written = tf.while_loop(
        lambda time, *_: time < length, body, (tf.constant(0), states, written), maximum_iterations=length
    )
    h, *others = [tf.transpose(one.stack(), [1, 0, 2]) for one in written]
    return h, states, others


def gradients(layer, calls, microbatch):
    cell = layer.cell
    width, gates = cell.kernel.shape
    units = cell.units

    def joined(tensors, channels):
        parts = [embedding.by_unit(microbatch.cast(one), [channels], microbatch) for one in tensors]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)

    z = joined([call.tap_gradients[0] for call in calls], gates)
    h = joined([call.saved["h"] for call in calls], units)
    of_recurrent, groups = z, []
    if isinstance(cell, keras.layers.GRUCell):
        reset = joined([call.saved["others"][0] for call in calls], units)
        if cell.reset_after:
            of_recurrent = tf.concat([z[..., : 2 * units], reset * z[..., 2 * units :]], axis=-1)
    if cell.kernel.trainable:
        x = joined([call.saved["x"] for call in calls], width)
        groups.append(positions.routes(cell.kernel, x, z, microbatch, lambda s: s[0], as_formed=True))
    if cell.recurrent_kernel.trainable:
        if isinstance(cell, keras.layers.GRUCell) and not cell.reset_after:
            groups.append(_by_gate(cell.recurrent_kernel, [h, h, reset * h], z, microbatch))
        else:
            groups.append(
                positions.routes(cell.recurrent_kernel, h, of_recurrent, microbatch, lambda s: s[0], as_formed=True)
            )
    if cell.use_bias and cell.bias.trainable:
        sums = [tf.reduce_sum(one, axis=1) for one in ([z, of_recurrent] if _two_biases(cell) else [z])]
        groups.append(contributions.kept(cell.bias, tf.stack(sums, axis=1) if len(sums) > 1 else sums[0]))
    return groups


def _by_gate(weight, inputs, z, microbatch):
    """The routes of a kernel whose gates have inputs of their own: one block for each gate."""
    blocks = len(inputs)
    a = tf.stack(inputs, axis=1)
    b = tf.stack(tf.split(z, blocks, axis=-1), axis=1)

    def arrange(sums):
        return tf.reshape(tf.transpose(sums[0], [1, 0, 2]), weight.shape)

    return positions.routes(weight, a, b, microbatch, arrange)


def _constant(weight, cell):
    return tf.cast(registry.constant(weight), cell.compute_dtype)


def _two_biases(cell):
    return isinstance(cell, keras.layers.GRUCell) and cell.reset_after


def refusal(layer):
    cell = layer.cell
    if layer.stateful:
        return "it is stateful, so what one batch leaves behind goes into the next"
    mask_for_each_gate = cell.dropout > 0 and getattr(cell, "implementation", 2) == 1
    if cell.recurrent_dropout > 0 or cell.dropout >= 1 or mask_for_each_gate:
        return "it has recurrent dropout, or a dropout mask for each gate (implementation=1); leave these out"
    return None


def parts(layer):
    """The cell, if it is one of the three; other cells have rules of their own, or none."""
    return [layer.cell] if type(layer.cell) in _STEPS else []


for _layer_class in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN):
    registry.register(_layer_class, registry.Rule(forward=forward, gradients=gradients, refusal=refusal, parts=parts))
