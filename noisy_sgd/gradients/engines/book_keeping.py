"""The fast engine: one forward pass, one backward pass to the layers' outputs, then every norm and the clipped sums.

The gradient of example i for a layer's weights is a product of the layer's input and the gradient at its output, both
of which an ordinary backward pass has (Goodfellow 2015; Bu et al. 2023, "book-keeping"). So during the trace every
layer with weights runs through its rule (`layer_rules`), which keeps the two, and

    ||g_i||^2 = sum over layers of the rule's norm       sum_i c_i g_i = the rule's sum, c_i = clip(||g_i||)

need neither a second backward pass nor, for most layers, any example's gradient. At each layer the backward pass waits
until the layer's norm is formed (and its per-example gradients, where those are kept). So tensors that only the norm
needs are freed on the way, and not held until the end.

    result = book_keeping.clipped_sum(model, loss_fn, x, y, clip=clipping.flat(1.0))
"""

import contextlib
import dataclasses
import math

import tensorflow as tf

from noisy_sgd.gradients import automatic_rule, batch, clipping, layer_calls, layer_rules
from noisy_sgd.gradients.layer_rules.shared import devices, rounding
from noisy_sgd.gradients.trials import example_axis

# Numbers of an example, such as the gradient of a bias.
SMALL_ROW = 256


def clipped_sum(model, loss_fn, x, y, *, clip, mask=None, views: int = 1) -> clipping.Result:
    """Sum over a microbatch of clip(norm) * gradient, from one backward pass.

    Args:
        model: a built Keras model of layers that have a rule.
        loss_fn: loss_fn(y, predictions) -> losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        clip: a `clipping.ClipFunction`, or any function from norms [B] to factors [B].
        mask: [B], 0 for padding, which contributes nothing at all. Defaults to no padding.
        views: augmented views of an example; its gradient is the mean over them, clipped once. Defaults to 1.

    Returns:
        A `clipping.Result`.

    Raises:
        layer_rules.NoRuleError: naming a layer that has no rule, or is used in a way that its rule does not cover.
        ValueError: if the model fails on synthetic inputs.
    """
    layers = layer_calls.layers_with_weights(model)
    calls = example_axis.check(model, layers, x, views)
    return batch.compute(
        lambda examples: _clipped_sum(model, layers, calls, loss_fn, examples, clip), x, y, mask, views
    )


def _clipped_sum(model, layers, without_examples, loss_fn, examples, clip):
    x, y = examples.rows()
    microbatch = layer_rules.Microbatch(
        units=examples.size, views=examples.views, device=devices.kind(), dtype=_precision(model)
    )

    contributions = _Contributions(microbatch)
    first = tf.nest.flatten(x)[0]
    rows = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    repeated = layer_calls.Repeated(layers, without_examples, rows)
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        _intercepting(layers, repeated, tape, contributions) as (records, problems),
    ):
        tape.watch([weight.value for weight in model.trainable_weights])
        predictions = model(x, training=True)
        losses = examples.without_padding(examples.mean_over_views(loss_fn(y, predictions)))
        total = tf.reduce_sum(losses)
    if problems:
        raise problems[0]
    calls = _backward(tape, total, layers, records, contributions)
    by_layer = _groups(layers, calls, contributions)
    groups = [group for own in by_layer.values() for group in own]

    masks = _masks(model, layers, by_layer, clip)
    count = tf.shape(losses)[0]
    with tf.control_dependencies(_one_norm_per_example(layers, by_layer, count, microbatch)):
        norms, factors = _norms_and_factors(model, clip, groups, masks, count, examples.present, microbatch)
    if not norms.shape.is_fully_defined():
        # XLA drops the assertion above, but not this reshape.
        norms = tf.reshape(norms, [count])
    finite = tf.math.is_finite(norms)
    tensors = _without_cut_rows(groups, finite, microbatch)
    remainder = None
    if clipping.wants_remainder(clip):
        kept = finite if examples.present is None else finite & examples.present
        taken = [tf.where(kept, 1 - factor, tf.zeros_like(factor)) for factor in factors]
        remainder = _sums(model, groups, taken, tensors, masks)
    return clipping.Result(
        losses=losses,
        predictions=examples.mean_over_views(predictions),
        norms=examples.without_padding(norms),
        values=_sums(model, groups, factors, tensors, masks),
        remainder=remainder,
    )


@contextlib.contextmanager
def _intercepting(layers, repeated, tape, contributions):
    """Has the layers' rules run the calls of the layers.

    Yields:
        ({id(layer): [Traced]}, [NoRuleError]). The errors are collected and raised later, because Keras would wrap an
        error that a layer's call raises.
    """
    records, problems = {id(layer): [] for layer, _ in layers}, []
    rules = {id(layer): rule for layer, rule in layers}
    graph = layer_calls.graph()

    def handler(layer, rule, usual, args, kwargs):
        if layer_calls.graph() is not graph:
            problems.append(layer_rules.NoRuleError(layer, layer_calls.IN_A_GRAPH_OF_ITS_OWN))
            return usual(*args, **kwargs)
        inputs = repeated.inputs(repeated.next_call(layer), args, kwargs)
        if inputs is None:
            problems.append(layer_rules.NoRuleError(layer, layer_calls.IN_ANOTHER_ORDER))
            return usual(*args, **kwargs)
        args, kwargs = inputs
        taps = layer_rules.Tape(tape, lambda slope: arrived(layer, slope))
        try:
            traced = rule.forward(taps, layer, *args, **kwargs)
        except layer_rules.NoRuleError as error:
            reason = automatic_rule.in_full(error.reason) if rule is automatic_rule.RULE else error.reason
            problems.append(layer_rules.NoRuleError(layer, reason))
            return usual(*args, **kwargs)
        for tap in traced.taps:
            tape.watch(tap)
        records[id(layer)].append(dataclasses.replace(traced, taps=[taps.before(tap) for tap in traced.taps]))
        return traced.outputs

    def arrived(layer, slope):
        """Forms the contribution of a layer with one call and one tap; returns what the backward pass waits for."""
        calls = records[id(layer)]
        if problems or len(calls) != 1 or len(calls[0].taps) != 1 or not contributions.fits(calls[0].taps[0]):
            return []
        call = layer_rules.Call(saved=calls[0].saved, tap_gradients=[slope])
        groups = contributions.add(layer, rules[id(layer)], [call])
        return [tensor for group in groups for tensor in (group.squared_norms, *group.tensors)]

    with layer_calls.intercepted(layers, handler):
        yield records, problems


def _backward(tape, total, layers, records, contributions):
    """{id(layer): [Call]} from one backward pass; refuses a weight that the norms miss, and a tap of other rows."""
    taps = {id(layer): [traced.taps for traced in records[id(layer)]] for layer, _ in layers}
    weights = {id(layer): [w.value for w in layer_rules.weights(layer) if w.trainable] for layer, _ in layers}
    slopes, direct = tape.gradient(total, (taps, weights))
    calls = {}
    for layer, _ in layers:
        for weight, slope in zip(weights[id(layer)], direct[id(layer)], strict=True):
            if slope is not None:
                raise layer_rules.NoRuleError(
                    layer,
                    f"its weight {weight.name!r} is also used outside the layer's call; project onto an embedding's "
                    "rows by keras.layers.ReversibleEmbedding",
                )
        found = []
        for traced, gradients in zip(records[id(layer)], slopes[id(layer)], strict=True):
            for tap in traced.taps:
                if not contributions.fits(tap):
                    raise layer_rules.NoRuleError(
                        layer,
                        f"it is called on {tap.shape[0] if tap.shape.rank else 'no'} rows for "
                        f"{contributions.microbatch.units} examples of {contributions.microbatch.views} views",
                    )
            if any(gradient is not None for gradient in gradients):
                pairs = zip(traced.taps, gradients, strict=True)
                found.append([tf.zeros_like(t) if g is None else tf.convert_to_tensor(g) for t, g in pairs])
                found[-1] = layer_rules.Call(saved=traced.saved, tap_gradients=found[-1])
        calls[id(layer)] = found
    return calls


class _Contributions:
    """The contributions of the layers that the backward pass has reached, each by its chosen route."""

    def __init__(self, microbatch):
        self.microbatch = microbatch
        self.groups = {}
        self._spare_bytes = layer_rules.SPARE_BYTES

    def fits(self, tap):
        """Whether a tap has one row per example and view, as far as that is known."""
        rows = None if self.microbatch.units is None else self.microbatch.units * self.microbatch.views
        return tap.shape.rank != 0 and (None in (rows, tap.shape[0]) or tap.shape[0] == rows)

    def add(self, layer, rule, calls):
        """The contributions of a layer."""
        replaced = 0.0
        for call in calls:
            for tensor in [*call.tap_gradients, *(t for t in tf.nest.flatten(call.saved) if tf.is_tensor(t))]:
                inner = math.prod(1 if size is None else size for size in tensor.shape[1:])
                replaced += self.microbatch.assumed_units * self.microbatch.views * inner * tensor.dtype.size
        found = self.groups[id(layer)] = []
        for group in rule.gradients(layer, calls, self.microbatch):
            if not isinstance(group, layer_rules.Contribution):
                route = layer_rules.choose(group, replaced, self._spare_bytes)
                self._spare_bytes -= max(0.0, route.kept_bytes - replaced)
                group = route.build()
            found.append(group)
        return found


def _groups(layers, calls, contributions):
    """{id(layer): the contributions of its groups of weights}."""
    for layer, rule in layers:
        if calls[id(layer)] and id(layer) not in contributions.groups:
            contributions.add(layer, rule, calls[id(layer)])
    return {id(layer): contributions.groups.get(id(layer), []) for layer, _ in layers}


def _one_norm_per_example(layers, groups, examples, microbatch):
    """Refuses contributions of more or fewer norms than examples; returns assertions where the trace does not know."""
    names, counts = [], []
    for layer, _ in layers:
        for group in groups[id(layer)]:
            shape = group.squared_norms.shape
            if not shape.is_compatible_with([microbatch.units]):
                raise layer_rules.NoRuleError(
                    layer,
                    f"its rule gives squared norms of shape {shape} for {microbatch.units} examples, not one each",
                )
            if not shape.is_fully_defined():
                names.append(layer.name)
                counts.append(tf.size(group.squared_norms))
    if not counts:
        return []
    message = f"The rules of layers must give one squared norm per example. Received: examples, then norms of {names}"
    return [tf.debugging.Assert(tf.reduce_all(tf.equal(tf.stack(counts), examples)), [message, examples, *counts])]


def _masks(model, layers, groups, clip):
    """{id(weight): mask} where only some coordinates count, else None; refuses a layer that has no norms of these."""
    choose = clipping.coordinates(clip)
    if choose is None:
        return None
    for layer, _ in layers:
        if any(group.squares_at is None for group in groups[id(layer)]):
            raise layer_rules.NoRuleError(layer, "its rule has no norms of gradients at some coordinates only")
    weights = model.trainable_weights
    return {id(weight): mask for weight, mask in zip(weights, choose([w.value for w in weights]), strict=True)}


def _squared_norms(group, masks):
    return group.squared_norms if masks is None else group.squares_at([masks[id(weight)] for weight in group.weights])


def _norms_and_factors(model, clip, groups, masks, count, present, microbatch):
    """The norms [units], and the factors [units] of every group."""
    if not groups:
        return tf.zeros([count], microbatch.dtype), []
    squares = [microbatch.cast(_squared_norms(group, masks)) for group in groups]
    layer_of = clipping.layers_of(model)
    layers = [layer_of[id(group.weights[0])] for group in groups]
    norms, factors = clipping.norms_and_factors(clip, squares, layers, len(set(layer_of.values())), present)
    return norms, [microbatch.cast(factor) for factor in factors]


def _without_cut_rows(groups, finite, microbatch):
    """What each group's sums are formed from, with the rows of examples whose norm is not finite cut out."""
    flat = [tensor for group in groups for tensor in group.tensors]
    zeros = {dtype: tf.zeros([], dtype) for dtype in dict.fromkeys(tensor.dtype for tensor in flat)}
    ranks = dict.fromkeys(tensor.shape.rank for tensor in flat)
    of_rank = {rank: tf.reshape(finite, [-1, *[1] * (rank - 1)]) for rank in ranks}

    def safe(tensor):
        rows = of_rank[tensor.shape.rank]
        if microbatch.views > 1:
            # The tensor has one row per example, or one per view.
            rows = tf.repeat(finite, tf.shape(tensor)[0] // tf.maximum(tf.shape(finite)[0], 1))
            rows = tf.reshape(rows, [-1, *[1] * (tensor.shape.rank - 1)])
        return _of_shape(tf.where(rows, tensor, zeros[tensor.dtype]), tensor.shape)

    # Nearly always there is nothing to cut, and selecting costs a pass over everything; a branch costs operations.
    rarely = [microbatch.device == "cpu" and (microbatch.views > 1 or _is_large(tensor)) for tensor in flat]
    large = [tensor for tensor, late in zip(flat, rarely, strict=True) if late]
    found = tf.cond(tf.reduce_all(finite), lambda: large, lambda: [safe(tensor) for tensor in large]) if large else []
    found = iter(found)
    cut = iter([next(found) if late else safe(tensor) for tensor, late in zip(flat, rarely, strict=True)])
    return [[next(cut) for _ in group.tensors] for group in groups]


def _sums(model, groups, factors, tensors, masks):
    """The sums of factor times gradient, one per trainable weight of the model, 0 where a mask is."""
    with rounding.shared_loop() as whole:
        sums = {
            id(weight): value
            for group, factor, own in zip(groups, factors, tensors, strict=True)
            for weight, value in zip(group.weights, group.sums(factor, own), strict=True)
        }
    found = [sums.get(id(weight)) for weight in model.trainable_weights]
    totals = [
        tf.zeros(weight.shape, weight.dtype)
        if value is None
        else tf.cast(_of_shape(whole.get(id(value), value), weight.shape), weight.dtype)
        for weight, value in zip(model.trainable_weights, found, strict=True)
    ]
    if masks is None:
        return totals
    kept = [tf.cast(masks[id(weight)], tf.bool) for weight in model.trainable_weights]
    return [tf.where(one, total, tf.zeros_like(total)) for one, total in zip(kept, totals, strict=True)]


def _is_large(tensor):
    """Whether a pass over a tensor costs more than to hand it through a branch."""
    return None in tensor.shape[1:] or math.prod(tensor.shape[1:]) > SMALL_ROW


def _of_shape(tensor, shape):
    """`tf.ensure_shape`, where the trace does not know the shape already."""
    return tensor if tensor.shape.is_fully_defined() and tensor.shape == shape else tf.ensure_shape(tensor, shape)


def _precision(model):
    """float64 where a weight is, else float32."""
    return tf.float64 if any(weight.dtype == "float64" for weight in model.trainable_weights) else tf.float32
