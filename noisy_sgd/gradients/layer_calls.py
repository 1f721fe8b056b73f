"""Intercepts the calls of a model's layers, for the length of a trace or a trial.

with layer_calls.intercepted(layers, handler):
    model(x)    # each of the layers calls handler(layer, rule, usual, args, kwargs) in place of its `call`

Covered by tests/gradients/engines/book_keeping_test.py and tests/gradients/trials/example_axis_test.py.
"""

import contextlib
import threading

import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients import layer_rules

IN_A_GRAPH_OF_ITS_OWN = "it is called inside a loop, a branch or a tf.function of the model"


def layers_with_weights(model) -> list:
    """(layer, rule) of every layer that has trainable weights of its own.

    Raises:
        layer_rules.NoRuleError: for a layer without a rule, and for a weight that no layer or several layers own.
    """
    trained = {id(weight) for weight in model.trainable_weights}
    owners = {}
    found = []
    for layer in keras_internals.layers(model):
        own = [weight for weight in keras_internals.own_weights(layer) if id(weight) in trained]
        if not own:
            continue
        rule = layer_rules.rule_for(layer)
        if "call" in vars(layer) and id(layer) not in _THREADS:
            raise layer_rules.NoRuleError(layer, "its `call` is replaced on the object")
        for weight in own:
            other = owners.setdefault(id(weight), layer)
            if other is not layer:
                raise layer_rules.NoRuleError(layer, f"it shares the weight {weight.name!r} with layer {other.name!r}")
        found.append((layer, rule))
    for weight in model.trainable_weights:
        if id(weight) not in owners:
            raise layer_rules.NoRuleError(model, f"no layer owns its weight {weight.path!r}")
    return found


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


def _dispatching(layer, usual):
    def call(*args, **kwargs):
        handler, rule = (getattr(_LOCAL, "handlers", None) or {}).get(id(layer), (None, None))
        return usual(*args, **kwargs) if handler is None else handler(layer, rule, usual, args, kwargs)

    return call
