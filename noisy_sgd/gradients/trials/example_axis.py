"""Is the leading axis of a layer's taps the examples' axis, in the examples' order, as the book-keeping engine needs?

The number of rows alone proves nothing. A model may put time first, look up one position embedding for all examples, or
reverse the batch and reverse it back; and at one batch size a wrong axis can have the right size. So the model runs on
2 and on 3 synthetic examples. Every tap must have one row per example, a row may change only where its example is
moved, and the gradient of an example's outputs must be zero in the rows of all other examples.

A layer may also be called on something that has no axis of examples at all, such as the positions [T] of all sequences.
Its inputs have the same shape for 2 and for 3 examples. Then they are repeated for every example, which must leave the
model's outputs as they are.

    calls = example_axis.check(model, layers, x)    # raises layer_rules.NoRuleError
"""

import weakref

import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients import automatic_rule, layer_calls, layer_rules
from noisy_sgd.gradients.layer_rules.shared import devices
from noisy_sgd.gradients.trials import own_gradients, synthetic

_NOT_REPEATABLE = (
    "it is called on inputs without an axis of examples, and the model's outputs change where these are repeated for "
    "every example; give its inputs an axis of examples, as ops.broadcast_to does"
)
# Calls on inputs without an axis of examples that are looked for in one model.
_MOST_CALLS = 16
_OWN_DERIVATIVE = "the model takes a derivative of it in its own call, which depends on the weights once more"
# For each model: what was found, by the ids of the layers and the kind of inputs that were tried.
_TRIED: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


def check(model, layers, x, views: int = 1) -> dict[tuple[int, int], tf.TensorShape]:
    """Refuses a model in which a row of some tap is not the example of that index.

    Every model is tried once per choice of layers and kind of inputs, sizes included: by the length of a sequence a
    model may call a layer more often, once of these on inputs without an axis of examples.

    Args:
        model: a built Keras model.
        layers: (layer, rule) of its layers with trainable weights.
        x: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.
        views: above 1, inputs are [B, views, ...]. Defaults to 1.

    Returns:
        The calls whose inputs have no axis of examples, for `layer_calls.Repeated`: {(index of the layer, number of its
        call): shape of the inputs}.

    Raises:
        layer_rules.NoRuleError: naming the layer.
        ValueError: if the model fails on synthetic inputs.
    """
    tried = _TRIED.setdefault(model, {})
    if views > 1:
        x = tf.nest.map_structure(_one_view, x)
    case = (tuple((id(layer), id(rule)) for layer, rule in layers), synthetic.kind(model, x, sizes=True))
    if case not in tried:
        tried[case] = synthetic.first_success_of_model(model, x, lambda examples: _tried(model, layers, examples))
    problem, calls = tried[case]
    if problem is not None:
        index, reason = problem
        layer, rule = layers[index]
        if rule is automatic_rule.RULE:
            reason = automatic_rule.in_full(reason)
        raise layer_rules.NoRuleError(layer, reason)
    return calls


def _tried(model, layers, examples):
    """((index of a layer, why it cannot be served), or None; the calls on inputs without an axis of examples)."""
    weights = synthetic.moved_weights(model)
    problem = _misplaced(model, layers, weights, examples, {})
    if problem is None:
        return None, {}
    calls = {}
    try:
        for _ in range(_MOST_CALLS):
            found = _next_without_examples(model, layers, weights, examples, calls)
            if found is None:
                break
            calls.update(found)
        if not calls:
            return problem, {}
        changed = _changes_outputs(model, layers, weights, examples, calls)
    except Exception:  # noqa: BLE001 - whatever the model raises on repeated inputs
        changed = True
    if changed:
        return (next(reversed(calls))[0], _NOT_REPEATABLE) if calls else problem, {}
    return _misplaced(model, layers, weights, examples, calls), calls


def _next_without_examples(model, layers, weights, examples, calls):
    """{key: shape} of the first call, but the known ones, on inputs of one shape for 2 and for 3 examples."""
    shapes = []
    for count in (2, synthetic.COUNT):
        repeated, seen = layer_calls.Repeated(layers, calls, count), {}

        def handler(layer, rule, usual, args, kwargs, repeated=repeated, seen=seen):
            key = repeated.next_call(layer)
            args, kwargs = repeated.inputs(key, args, kwargs) or (args, kwargs)
            tensors = [one for one in tf.nest.flatten((args, kwargs)) if tf.is_tensor(one)]
            if key not in calls and len(tensors) == 1 and tensors[0].shape.rank:
                seen[key] = tensors[0].shape
            return usual(*args, **kwargs)

        with layer_calls.intercepted(layers, handler):
            synthetic.stateless_call(model, weights, examples.batch(count), training=True)
        shapes.append(seen)
    first, second = shapes
    return next(({key: shape} for key, shape in first.items() if shape == second.get(key)), None)


def _changes_outputs(model, layers, weights, examples, calls):
    """Whether the model returns something else where the inputs of these calls are repeated for every example."""
    coarse = any(_is_coarse(layer.compute_dtype) for layer in keras_internals.layers(model))
    for count in (2, synthetic.COUNT):
        repeated = layer_calls.Repeated(layers, calls, count)

        def handler(layer, rule, usual, args, kwargs, repeated=repeated):
            args, kwargs = repeated.inputs(repeated.next_call(layer), args, kwargs)
            return usual(*args, **kwargs)

        inputs = examples.batch(count)
        expected, _ = synthetic.stateless_call(model, weights, inputs, training=True)
        with layer_calls.intercepted(layers, handler):
            found, _ = synthetic.stateless_call(model, weights, inputs, training=True)
        if not _agree(found, expected, coarse):
            return True
    return False


def _misplaced(model, layers, weights, examples, calls):
    """(index of a layer, why it cannot be served), or None."""
    rows = _Rows(layers, calls)
    for count, moved in ((2, None), (synthetic.COUNT, None), *((synthetic.COUNT, i) for i in range(synthetic.COUNT))):
        with layer_calls.intercepted(layers, rows.of(count, moved)):
            synthetic.stateless_call(model, weights, examples.batch(count, moved), training=True)
        if rows.problem is not None:
            return rows.problem
    inputs = examples.batch(synthetic.COUNT)
    problem, automatic = _mixed_gradients(model, layers, weights, inputs, calls)
    coarse = any(_is_coarse(layer.compute_dtype) for layer in keras_internals.layers(model))
    for index, rows in automatic.items():
        if not own_gradients.agree(model, layers[index][0], weights, inputs, rows, coarse):
            return index, "the gradients of the examples are others than those of the layer"
    return problem


def _mixed_gradients(model, layers, weights, inputs, calls):
    """Whether one example's outputs have a gradient at another example's row of a tap.

    Returns:
        ((index of a layer, why it cannot be served) or None, {index of a layer with an automatic rule: for each
        example, the gradients at its row of each tap}).
    """
    taps, repeated = [], layer_calls.Repeated(layers, calls, synthetic.COUNT)

    def handler(layer, rule, usual, args, kwargs):
        args, kwargs = repeated.inputs(repeated.next_call(layer), args, kwargs)
        traced = rule.forward(_Watch(tape), layer, *args, **kwargs)
        for tap in traced.taps:
            tape.watch(tap)
            taps.append(tap)
            indices.append(numbers[id(layer)])
        return tf.nest.map_structure(_with_gradient_of_its_own, traced.outputs)

    numbers, indices = {id(layer): index for index, (layer, _) in enumerate(layers)}, []
    with (
        tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
        layer_calls.intercepted(layers, handler),
    ):
        outputs, _ = synthetic.stateless_call(model, weights, inputs, training=True)

    def at_taps(example=None):
        gradients = tape.gradient(*own_gradients.seeded(outputs, example, taps))
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        # Copies in NumPy, as in `_Rows`.
        return [None if g is None else np.array(g if g.dtype.size > 2 else tf.cast(g, tf.float32)) for g in gradients]

    automatic = {index: [] for index, (_, rule) in enumerate(layers) if rule is automatic_rule.RULE}
    together = at_taps()
    for i in range(synthetic.COUNT):
        found = at_taps(i)
        for index, rows in automatic.items():
            own = [gradient for tap, gradient in zip(indices, found, strict=True) if tap == index]
            rows.append([None if gradient is None else gradient[i] for gradient in own])
        for index, gradient, of_all in zip(indices, found, together, strict=True):
            if gradient is None:
                continue
            others = [gradient[row] for row in range(synthetic.COUNT) if row != i]
            if any(np.any(row[np.isfinite(row)]) for row in others):
                return (index, "its rows are not the examples: another example's outputs depend on a row"), {}
            if not synthetic.nearly_equal(gradient[i], of_all[i], relative=True):
                return (index, "the gradient of one example's outputs changes with that of another's"), {}
    return None, automatic


class _Rows:
    """Compares the rows of a pass over examples with those of passes in which one example is moved.

    Attributes:
        problem: (index of a layer, why it cannot be served), or None.
    """

    def __init__(self, layers, calls):
        self.problem = None
        self._layers, self._calls = layers, calls
        self._indices = {id(layer): index for index, (layer, _) in enumerate(layers)}
        self._before = []

    def of(self, count, moved):
        """The handler of layer calls of one pass."""
        if moved is None:
            self._before = []
        before = iter(self._before)
        first_pass = count == 2
        repeated = layer_calls.Repeated(self._layers, self._calls, count)
        others = [index for index in range(count) if index != moved]

        def handler(layer, rule, usual, args, kwargs):
            if layer_calls.graph() is not None:
                self._note(layer, layer_calls.IN_A_GRAPH_OF_ITS_OWN)
                return usual(*args, **kwargs)
            inputs = repeated.inputs(repeated.next_call(layer), args, kwargs)
            if inputs is None:
                self._note(layer, layer_calls.IN_ANOTHER_ORDER)
                return usual(*args, **kwargs)
            args, kwargs = inputs
            tape = _NoTape()
            try:
                traced = rule.forward(tape, layer, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever the formula of a rule raises
                outputs = usual(*args, **kwargs)
                reason = error.reason if isinstance(error, layer_rules.NoRuleError) else synthetic.one_line(error)
                if rule is not automatic_rule.RULE:
                    reason = f"its rule fails on synthetic examples on which the layer runs: {reason}"
                self._note(layer, reason)
                return outputs
            if first_pass and not _same_outputs(usual, traced.outputs, args, kwargs):
                self._note(layer, "its rule computes something else than the layer on synthetic examples")
            outputs = traced.outputs
            if first_pass:
                # The engine records no tape here, so a gradient that goes back is the model's own derivative.
                outputs = tf.nest.map_structure(
                    lambda output: _noticing(output, lambda: self._note(layer, _OWN_DERIVATIVE)), outputs
                )
            # Where outputs are computed from `tape.tap`s, the taps suffice. Other taps, such as copies of weights, are
            # the same for all examples, so the outputs are compared as well.
            seen = traced.taps if tape.tapped else [*traced.taps, *_tensors(traced.outputs)]
            for tensor in {id(tensor): tensor for tensor in seen}.values():
                if not tensor.shape.rank or tensor.shape[0] != count:
                    rows = tensor.shape[0] if tensor.shape.rank else "no"
                    self._note(layer, f"it is called on {rows} rows for {count} synthetic examples")
                elif moved is None:
                    # A copy in NumPy, whose memory goes back to the system; TensorFlow would keep that of a tensor.
                    self._before.append(np.array(tensor))
                elif not _same_rows(next(before, None), tensor, others):
                    self._note(layer, "its rows are not the examples: a row changes with another example")
            return outputs

        return handler

    def _note(self, layer, reason):
        self.problem = self.problem or (self._indices[id(layer)], reason)


def _same_rows(before, after, rows):
    """Whether two tensors agree in these rows; the first may be None."""
    if before is None or before.shape != after.shape:
        return False
    return all(synthetic.nearly_equal(before[row], after[row], relative=True) for row in rows)


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
    """Whether a rule's outputs are those of the layer's own call; True where two such calls differ by random draws."""
    with layer_calls.paused():
        expected = layer_call(*args, **kwargs)
        if _agree(outputs, expected):
            return True
        return not _agree(expected, layer_call(*args, **kwargs))


def _agree(first, second, coarse=False):
    """Whether two nests hold the same values, but for the rounding of other kernels, which may be `coarse`."""
    first, second = _tensors(first), _tensors(second)
    if [one.dtype for one in first] != [one.dtype for one in second]:
        return False
    coarse = coarse or any(_is_coarse(one.dtype) for one in first)
    tolerance = {"tolerance": synthetic.OTHER_KERNELS} if coarse else {}
    return all(synthetic.nearly_equal(a, b, relative=True, **tolerance) for a, b in zip(first, second, strict=True))


def _tensors(nest):
    """The tensors of a nest; a layer may return None beside them."""
    return [one for one in tf.nest.flatten(nest) if tf.is_tensor(one)]


def _is_coarse(dtype):
    """Whether matrix products of this type are rounded to few bits, as an accelerator's are."""
    dtype = tf.as_dtype(dtype)
    return dtype.is_floating and (dtype.size < 4 or bool(devices.accelerators()))


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
    """A spec of one view of each example."""
    return tf.TensorSpec([tensor.shape[0], *tensor.shape[2:]], tensor.dtype)
