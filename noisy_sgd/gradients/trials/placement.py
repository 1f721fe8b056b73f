"""Tries whether the rows of a layer's taps are the examples, in their order, as the book-keeping engine needs.

As many rows as examples prove nothing: a model may put time first, look up one position embedding for all examples, or
turn the batch round and back, and at one batch size every count is right. So the model runs on 2 and on 3 made-up
examples: every tap must have as many rows, a row may change only where its example is moved, and the gradient of an
example's outputs may reach its own row alone.

    placement.check(model, layers, x)    # raises layer_rules.NoRuleError
"""

import weakref

import numpy as np
import tensorflow as tf

from noisy_sgd.gradients import layer_calls, layer_rules
from noisy_sgd.gradients.trials import made_up

_OWN_DERIVATIVE = "the model takes a derivative of it in its own call, which depends on the weights once more"
# Of each model the layers tried, and what was found.
_TRIED: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


def check(model, layers, x, views: int = 1) -> None:
    """Refuses a model in which a row of some tap is not the example of that index; tries every model once.

    Args:
        model: a built Keras model.
        layers: (layer, rule) of its layers with trainable weights.
        x: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.
        views: above 1, inputs are [B, views, ...]. Defaults to 1.

    Raises:
        layer_rules.NoRuleError: naming the layer.
        ValueError: if the model fails on made-up inputs.
    """
    names = [id(layer) for layer, _ in layers]
    tried, found = _TRIED.get(model, (None, None))
    if tried != names:
        if views > 1:
            x = tf.nest.map_structure(_one_view, x)
        found = made_up.of_model(model, x, lambda examples: _misplaced(model, layers, examples))
        _TRIED[model] = (names, found)
    if found is not None:
        index, reason = found
        raise layer_rules.NoRuleError(layers[index][0], reason)


def _misplaced(model, layers, examples):
    """(index of a layer, why it cannot be served), or None."""
    weights = made_up.weights(model)
    rows = _Rows(layers)
    for count, moved in ((2, None), (made_up.COUNT, None), *((made_up.COUNT, i) for i in range(made_up.COUNT))):
        with layer_calls.routed(layers, rows.of(count, moved)):
            made_up.call(model, weights, examples.batch(count, moved), training=True)
        if rows.problem is not None:
            return rows.problem
    return _mixed_gradients(model, layers, weights, examples.batch(made_up.COUNT))


def _mixed_gradients(model, layers, weights, inputs):
    """(index of a layer, why it cannot be served) where one example's outputs have a gradient at another's row."""
    taps = []

    def record(layer, rule, usual, args, kwargs):
        traced = rule.forward(_Watch(tape), layer, *args, **kwargs)
        for tap in traced.taps:
            tape.watch(tap)
            taps.append(tap)
            indices.append(numbers[id(layer)])
        return tf.nest.map_structure(_with_gradient_of_its_own, traced.outputs)

    numbers, indices = {id(layer): index for index, (layer, _) in enumerate(layers)}, []
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        with layer_calls.routed(layers, record):
            outputs, _ = made_up.call(model, weights, inputs, training=True)
        outputs = [output for output in outputs if output.dtype.is_floating]
        # Entries must not cancel, as probabilities do, which add up to 1.
        rng = np.random.default_rng(2)
        slopes = [tf.constant(rng.standard_normal(output.shape), output.dtype) for output in outputs]
        pairs = list(zip(outputs, slopes, strict=True))
        each = [[tf.reduce_sum(output[i] * slope[i]) for output, slope in pairs] for i in range(made_up.COUNT)]

    def at_taps(targets):
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(targets, taps)]
        return [None if g is None else np.asarray(tf.cast(g, tf.float64)) for g in gradients]

    together = at_taps([target for of_one in each for target in of_one])
    for i, of_one in enumerate(each):
        for index, gradient, of_all in zip(indices, at_taps(of_one), together, strict=True):
            if gradient is None:
                continue
            others = [gradient[row] for row in range(made_up.COUNT) if row != i]
            if any(np.any(row[np.isfinite(row)]) for row in others):
                return index, "its rows are not the examples: one has a part in another example's outputs"
            if not made_up.same(gradient[i], of_all[i], relative=True):
                return index, "the gradient of one example's outputs changes with that of another's"
    return None


class _Rows:
    """The rows of a pass over examples, which those of passes with one example moved are compared with.

    Attributes:
        problem: (index of a layer, why it cannot be served), or None.
    """

    def __init__(self, layers):
        self.problem = None
        self._indices = {id(layer): index for index, (layer, _) in enumerate(layers)}
        self._before = []

    def of(self, count, moved):
        """The record of a pass."""
        if moved is None:
            self._before = []
        before = iter(self._before)
        first_pass = count == 2
        others = [index for index in range(count) if index != moved]

        def record(layer, rule, usual, args, kwargs):
            if layer_calls.graph() is not None:
                self._note(layer, layer_calls.IN_A_GRAPH_OF_ITS_OWN)
                return usual(*args, **kwargs)
            tape = _NoTape()
            try:
                traced = rule.forward(tape, layer, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever the formula of a rule raises
                outputs = usual(*args, **kwargs)
                self._note(layer, f"its rule fails on made-up examples that the layer takes: {made_up.one_line(error)}")
                return outputs
            if first_pass and not _same_outputs(usual, traced.outputs, args, kwargs):
                self._note(layer, "its rule computes something else than the layer on made-up examples")
            outputs = traced.outputs
            if first_pass:
                # No tape of ours records here: what goes back is the model's own derivative.
                outputs = tf.nest.map_structure(
                    lambda output: _noticing(output, lambda: self._note(layer, _OWN_DERIVATIVE)), outputs
                )
            # Outputs are computed from `tape.tap`s; other taps, such as copies of weights, need not show the places.
            seen = traced.taps if tape.tapped else [*traced.taps, *tf.nest.flatten(traced.outputs)]
            for tensor in {id(tensor): tensor for tensor in seen}.values():
                if not tensor.shape.rank or tensor.shape[0] != count:
                    rows = tensor.shape[0] if tensor.shape.rank else "no"
                    self._note(layer, f"it is called on {rows} rows for {count} made-up examples")
                elif moved is None:
                    # A copy, whose memory goes back to the system; TensorFlow would keep it.
                    self._before.append(np.array(tensor))
                elif not _same_rows(next(before, None), tensor, others):
                    self._note(layer, "its rows are not the examples: one changes with another example")
            return outputs

        return record

    def _note(self, layer, reason):
        self.problem = self.problem or (self._indices[id(layer)], reason)


def _same_rows(before, after, rows):
    """Whether two tensors, of which the first may be missing, agree in some rows."""
    if before is None or before.shape != after.shape:
        return False
    return all(made_up.same(before[row], after[row], relative=True) for row in rows)


def _noticing(output, notice):
    """The same output; calls `notice` when a derivative goes back through it."""
    if not (tf.is_tensor(output) and output.dtype.is_floating):
        return output

    @tf.custom_gradient
    def same(value):
        def backward(slope):
            notice()
            return slope

        return tf.identity(value), backward

    return same(output)


def _with_gradient_of_its_own(output):
    """The same output; the gradient that comes back to it is a tensor of its own.

    An addition passes one tensor on to both its sides. TensorFlow never frees what it returns for two sources.
    """
    return tf.reshape(output, tf.shape(output)) if tf.is_tensor(output) else output


def _same_outputs(layer_call, outputs, args, kwargs):
    """Whether a rule's outputs are those of the layer's own call, unless two of its calls differ by what they draw."""
    expected = layer_call(*args, **kwargs)
    if _agree(outputs, expected):
        return True
    return not _agree(expected, layer_call(*args, **kwargs))


def _agree(first, second):
    """Whether two nests hold the same, but for the rounding of other kernels."""
    pairs = zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True)
    return all(made_up.same(a, b, relative=True, tolerance=made_up.OTHER_KERNELS) for a, b in pairs)


class _Watch:
    """Stands for a `layer_rules.Tape` where only the gradients at the taps are wanted.

    Unlike that one it puts nothing on the tape that holds the tape, and with it the memory of a pass.
    """

    def __init__(self, tape):
        self.watch = tape.watch

    def tap(self, tensor):
        """Watches and returns the tensor."""
        self.watch(tensor)
        return tensor


class _NoTape:
    """Stands for a `layer_rules.Tape` where no gradient is wanted.

    Attributes:
        tapped: whether outputs are computed from a tap.
    """

    tapped = False

    def watch(self, tensor):
        """Does nothing."""

    def tap(self, tensor):
        """Returns the tensor."""
        self.tapped = True
        return tensor


def _one_view(tensor):
    """A symbol of the shape of one view of each example."""
    return tf.TensorSpec([tensor.shape[0], *tensor.shape[2:]], tensor.dtype)
