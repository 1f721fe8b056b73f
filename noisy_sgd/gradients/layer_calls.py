"""Intercepts the calls of a model's layers, for the length of a trace or a trial.

with layer_calls.intercepted(layers, handler):
    model(x)    # each of the layers calls handler(layer, rule, usual, args, kwargs) in place of its `call`

Covered by tests/gradients/engines/book_keeping_test.py and tests/gradients/trials/example_axis_test.py.
"""

import contextlib
import threading

import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients import automatic_rule, layer_rules

IN_A_GRAPH_OF_ITS_OWN = "it is called inside a loop, a branch or a tf.function of the model"
IN_ANOTHER_ORDER = "it is called in another order than on synthetic examples"


def layers_with_weights(model) -> list:
    """(layer, rule) of every layer that has trainable weights of its own.

    Raises:
        layer_rules.NoRuleError: for a layer that its rule refuses, and a weight that no layer or several layers own.
    """
    trained = {id(weight) for weight in model.trainable_weights}
    owners = {}
    found = []
    layers = keras_internals.layers(model)
    parts = {id(part) for layer in layers for part in layer_rules.parts(layer)}
    for layer in layers:
        own = [weight for weight in layer_rules.weights(layer) if id(weight) in trained]
        if not own or id(layer) in parts:
            continue
        rule = layer_rules.rule_for(layer, automatic_rule.RULE)
        if "call" in vars(layer) and id(layer) not in _THREADS:
            raise layer_rules.NoRuleError(layer, "its `call` is replaced on the object")
        for weight in own:
            other = owners.setdefault(id(weight), layer)
            if other is not layer:
                raise layer_rules.NoRuleError(
                    layer,
                    f"it shares the weight {weight.name!r} with layer {other.name!r}; call one layer twice, or project "
                    "onto an embedding's rows by keras.layers.ReversibleEmbedding",
                )
        found.append((layer, rule))
    for weight in model.trainable_weights:
        if id(weight) not in owners:
            raise layer_rules.NoRuleError(model, f"no layer owns its weight {weight.path!r}")
    return found


class Repeated:
    """Gives calls of layers on inputs without an axis of examples, such as positions, one copy of these per example.

    `example_axis` finds the calls: what such a layer returns must mean the same with one row per example.

    Args:
        layers: (layer, rule) of each.
        calls: {(index of the layer, number of its call): the shape of its inputs}.
        rows: the number of examples, a number or a tensor.
    """

    def __init__(self, layers, calls: dict, rows):
        self._indices = {id(layer): index for index, (layer, _) in enumerate(layers)}
        self._calls, self._rows, self._counts = calls, rows, {}

    def next_call(self, layer) -> tuple[int, int]:
        """Counts a call of a layer; returns its key."""
        index = self._indices[id(layer)]
        number = self._counts[index] = self._counts.get(index, -1) + 1
        return index, number

    def inputs(self, key, args, kwargs):
        """(args, kwargs) of a call, with rows where it has none; None where it is another call than in the trial."""
        shape = self._calls.get(key)
        if shape is None:
            return args, kwargs
        tensors = [one for one in tf.nest.flatten((args, kwargs)) if tf.is_tensor(one)]
        if len(tensors) != 1 or not tensors[0].shape.is_compatible_with(shape):
            return None
        if shape.rank > 1 and shape[0] == 1 and tensors[0].shape[0] != 1:
            # An unknown number of rows, which may be the examples.
            return None
        return tf.nest.map_structure(lambda one: self.rows_of(one) if tf.is_tensor(one) else one, (args, kwargs))

    def rows_of(self, tensor: tf.Tensor) -> tf.Tensor:
        """[1, n, ...] or [n, ...] without examples -> [rows, n, ...]."""
        one = tensor if tensor.shape.rank > 1 and tensor.shape[0] == 1 else tensor[None]
        inner = one.shape[1:]
        sizes = list(inner) if inner.is_fully_defined() else tf.unstack(tf.shape(one)[1:])
        return tf.broadcast_to(one, [self._rows, *sizes])


def graph():
    """The graph that is being built, None while executing eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


# Replicas of one strategy trace in threads of their own. So an intercepted `call` looks up the handler of its thread,
# and runs the layer's usual `call` where the thread has none.
_LOCAL = threading.local()
_LOCK = threading.Lock()
# How many threads intercept a layer now: {id(layer): number}.
_THREADS: dict[int, int] = {}


@contextlib.contextmanager
def intercepted(layers, handler):
    """Has `handler` run the calls that this thread makes of the layers; restores the layers in any case.

    Args:
        layers: (layer, rule) of each.
        handler: handler(layer, rule, usual, args, kwargs) -> the call's outputs, where `usual` is the layer's own
            `call`. It should raise nothing, since Keras would wrap the error.
    """
    outer = getattr(_LOCAL, "handlers", None)
    with _LOCK:
        for layer, _ in layers:
            _THREADS[id(layer)] = _THREADS.get(id(layer), 0) + 1
            if _THREADS[id(layer)] == 1:
                object.__setattr__(layer, "call", _dispatching(layer, layer.call))
    _LOCAL.handlers = {id(layer): (handler, rule) for layer, rule in layers}
    try:
        yield
    finally:
        _LOCAL.handlers = outer
        with _LOCK:
            for layer, _ in layers:
                _THREADS[id(layer)] -= 1
                if _THREADS[id(layer)] == 0:
                    del _THREADS[id(layer)]
                    object.__delattr__(layer, "call")


@contextlib.contextmanager
def paused():
    """Within the block, the calls that this thread makes of the layers are their usual ones."""
    outer, _LOCAL.handlers = getattr(_LOCAL, "handlers", None), None
    try:
        yield
    finally:
        _LOCAL.handlers = outer


def _dispatching(layer, usual):
    def call(*args, **kwargs):
        handler, rule = (getattr(_LOCAL, "handlers", None) or {}).get(id(layer), (None, None))
        return usual(*args, **kwargs) if handler is None else handler(layer, rule, usual, args, kwargs)

    return call
