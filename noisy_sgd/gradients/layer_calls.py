"""Routes the calls of a model's layers through a function, for the length of a trace or a trial.

with recording.routed(layers, record):
    model(x)    # each of the layers calls record(layer, rule, usual, args, kwargs) in place of its `call`
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
        layer_rules.NoRuleError: for a layer without a rule, and for weights that are not one layer's own.
    """
    trained = {id(weight) for weight in model.trainable_weights}
    owners = {}
    found = []
    for layer in keras_internals.layers(model):
        own = [weight for weight in keras_internals.own_weights(layer) if id(weight) in trained]
        if not own:
            continue
        rule = layer_rules.rule_for(layer)
        if "call" in vars(layer) and id(layer) not in _TRACES:
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


# While any thread traces, a traced layer's `call` looks up its own thread's record here; other threads get the layer's
# usual `call`. Replicas of one strategy trace in threads of their own.
_LOCAL = threading.local()
_LOCK = threading.Lock()
_TRACES: dict[int, int] = {}


@contextlib.contextmanager
def routed(layers, record):
    """Routes calls that this thread makes of the layers to `record`; restores the layers in any case.

    Args:
        layers: (layer, rule) of each.
        record: record(layer, rule, usual, args, kwargs) -> the call's outputs, where `usual` is the layer's own `call`.
            It should raise nothing, since Keras would wrap that.
    """
    outer = getattr(_LOCAL, "record", None)
    with _LOCK:
        for layer, _ in layers:
            _TRACES[id(layer)] = _TRACES.get(id(layer), 0) + 1
            if _TRACES[id(layer)] == 1:
                object.__setattr__(layer, "call", _dispatching(layer, layer.call))
    _LOCAL.record = {id(layer): (record, rule) for layer, rule in layers}
    try:
        yield
    finally:
        _LOCAL.record = outer
        with _LOCK:
            for layer, _ in layers:
                _TRACES[id(layer)] -= 1
                if _TRACES[id(layer)] == 0:
                    del _TRACES[id(layer)]
                    object.__delattr__(layer, "call")


def _dispatching(layer, usual):
    def call(*args, **kwargs):
        record, rule = (getattr(_LOCAL, "record", None) or {}).get(id(layer), (None, None))
        return usual(*args, **kwargs) if record is None else record(layer, rule, usual, args, kwargs)

    return call
