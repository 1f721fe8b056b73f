"""The registry of rules: how one kind of layer runs during a trace, and what its per-example gradients are.

A rule has two functions. `forward` is the layer's `call` with its trained weights behind `tf.stop_gradient`; it also
says at which tensors the backward pass must give gradients (`taps`, mostly the output before its activation) and what
to keep until then (`saved`, mostly the input). `gradients` turns these into contributions (see `contributions`):
squared norms at once, clipped sums when the clip factors are known. `microbatch` is a `layer_rules.Microbatch`. A rule
for your own layer, y = x * gain:

    def forward(tape, layer, inputs):
        outputs = inputs * layer_rules.constant(layer.gain)
        return layer_rules.Traced(outputs=outputs, taps=[outputs], saved=inputs)

    def gradients(layer, calls, microbatch):
        products = [microbatch.sum_views(call.tap_gradients[0] * call.saved) for call in calls]
        # [units, ..., size of the gain]: a gain meets every position of an example.
        over_positions = [tf.reduce_sum(one, axis=list(range(1, one.shape.rank - 1))) for one in products]
        return [layer_rules.kept(layer.gain, tf.add_n(over_positions))]

    layer_rules.register(Gain, layer_rules.Rule(forward=forward, gradients=gradients))

For a layer with few weights, `scale.rule` makes the rule in one line: the layer runs with one copy of its weights per
example.
"""

import collections.abc
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from noisy_sgd import keras_internals


class NoRuleError(ValueError):
    """A layer that the book-keeping engine cannot serve.

    Attributes:
        layer_name: the layer's name.
        class_name: the name of its class.
        reason: why the engine cannot serve it, a clause.
    """

    def __init__(self, layer: keras.Layer, reason: str):
        self.layer_name = layer.name
        self.class_name = type(layer).__name__
        self.reason = reason
        super().__init__(
            f"the book-keeping engine cannot serve layer {layer.name!r} ({self.class_name}): {reason}; register a rule "
            "for the class with `layer_rules.register` (from noisy_sgd.gradients import layer_rules), or use "
            f'engine="vectorized". Received: layer={layer.name}'
        )


class Tape:
    """The gradient tape, as a rule sees it.

    Args:
        tape: the `tf.GradientTape`.
        arrived: arrived(gradient at a tap) -> tensors that the rest of the backward pass waits for.
    """

    def __init__(self, tape: tf.GradientTape, arrived: collections.abc.Callable[[tf.Tensor], list[tf.Tensor]]):
        self._tape, self._arrived = tape, arrived
        self._before = {}

    def watch(self, tensor: tf.Tensor) -> None:
        """Asks for the gradient at a tensor, before the outputs are computed from it."""
        self._tape.watch(tensor)

    def tap(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the tensor to compute the outputs from; the layer's norm is formed when the gradient arrives there.

        The backward pass to earlier layers waits for the norm, so that tensors which only the norm needs are freed.
        """
        self._tape.watch(tensor)

        @tf.custom_gradient
        def passed(value):
            def backward(slope):
                slope = tf.convert_to_tensor(slope)
                with tf.control_dependencies(self._arrived(slope)):
                    return tf.identity(slope)

            return tf.identity(value), backward

        tapped = passed(tensor)
        self._before[id(tapped)] = tapped, tensor
        return tapped

    def before(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor that was given to `tap` for this tapped tensor; any other tensor unchanged.

        Where two tapped tensors are added, their gradients are one tensor. TensorFlow never frees it once it is
        returned for both. The gradients at the tensors before the taps are two tensors.
        """
        return self._before.get(id(tensor), (None, tensor))[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traced:
    """One call of a layer in the forward pass.

    Attributes:
        outputs: what the layer returns.
        taps: tensors at which the gradient of the loss is wanted, each with a leading axis of examples.
        saved: anything else that `gradients` needs.
    """

    outputs: Any
    taps: list[tf.Tensor]
    saved: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a layer after the backward pass: what it saved, and the gradients at its taps (same order)."""

    saved: Any
    tap_gradients: list[tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How one kind of layer yields norms and sums.

    Attributes:
        forward: forward(tape, layer, *args, **kwargs) -> `Traced`, with a `Tape` and the arguments of the layer's
            `call`. The engine watches the returned taps, which is too late for a tap that the outputs are computed
            from: such a tap needs `tape.tap` or `tape.watch`.
        gradients: gradients(layer, calls, microbatch) -> a list with one entry per group of trained weights: a
            `Contribution`, or a list of `Route`s to choose from. A layer used more than once has several calls, whose
            gradients add up before the norm.
        refusal: refusal(layer) -> why this layer cannot be served, a clause, or None. Defaults to refusing no layer.
        parts: parts(layer) -> layers in it whose weights the rule serves as well, such as the cell of a recurrent
            layer. They are not called in the trace. Defaults to none.
        lora: the rule of the layer with LoRA enabled. Defaults to None, which refuses such a layer.
    """

    forward: collections.abc.Callable[..., Traced]
    gradients: collections.abc.Callable[..., list]
    refusal: collections.abc.Callable[[keras.Layer], str | None] = lambda layer: None
    parts: collections.abc.Callable[[keras.Layer], list[keras.Layer]] = lambda layer: []
    lora: "Rule | None" = None


_RULES: dict[type, Rule] = {}
_NAMED: dict[tuple[str, str], Rule] = {}
_WRAPPERS: set[type] = set()


def register(layer_class: type, rule: Rule) -> None:
    """Registers `rule` for `layer_class`, replacing an earlier one; not for subclasses, whose `call` may differ.

    Args:
        layer_class: a subclass of `keras.Layer`.
        rule: the rule.

    Raises:
        ValueError: if `layer_class` is not a class of layers, or `rule` is not a rule.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise ValueError(f"`layer_class` must be a subclass of keras.Layer. Received: layer_class={layer_class!r}")
    if not isinstance(rule, Rule):
        raise ValueError(
            f"`rule` must be a layer_rules.Rule, as `layer_rules.scale.rule` makes one. Received: rule={rule!r}"
        )
    _RULES[layer_class] = rule


def register_name(package: str, class_names: collections.abc.Iterable[str], rule: Rule) -> None:
    """Registers `rule` for classes of a package that may be missing, or too old to have them.

    Args:
        package: the top-level package of the classes' modules.
        class_names: names of classes.
        rule: the rule.
    """
    _NAMED.update({(package, name): rule for name in class_names})


def register_wrapper(layer_class: type) -> None:
    """Registers a class whose own trained weights are those of the layer in it, which uses them, and has a rule.

    The wrapper may change the weights before, as `SpectralNormalization` does, but no gradient goes through that.
    """
    _WRAPPERS.add(layer_class)


def _registered(layer_class):
    rule = _RULES.get(layer_class)
    return rule or _NAMED.get((layer_class.__module__.partition(".")[0], layer_class.__name__))


def parts(layer: keras.Layer) -> list[keras.Layer]:
    """The layers in a layer whose weights its rule serves."""
    rule = _registered(type(layer))
    return [] if rule is None else rule.parts(layer)


def weights(layer: keras.Layer) -> list[keras.Variable]:
    """The layer's own weights, frozen ones too, and those of the layers in it that its rule serves."""
    if type(layer) in _WRAPPERS:
        return []
    return [weight for one in (layer, *parts(layer)) for weight in keras_internals.own_weights(one)]


def rule_for(layer: keras.Layer, default: Rule | None = None) -> Rule:
    """The rule of a layer's class.

    Args:
        layer: the layer.
        default: the rule of a class without one. Defaults to None, which refuses such a layer.

    Raises:
        NoRuleError: if there is no rule, or the rule refuses this layer.
    """
    rule = _registered(type(layer)) or default
    if rule is None:
        raise NoRuleError(layer, "its class has its own trainable weights but no rule")
    if getattr(layer, "quantization_mode", None) is not None:
        raise NoRuleError(layer, "it is quantized")
    if getattr(layer, "lora_enabled", False):
        rule = rule.lora
        if rule is None:
            raise NoRuleError(layer, "it has LoRA enabled, for which its class has no rule")
    if keras_internals.is_rematerialized(layer):
        raise NoRuleError(layer, "it is rematerialized")
    reason = rule.refusal(layer)
    if reason is not None:
        raise NoRuleError(layer, reason)
    return rule


def constant(weight) -> tf.Tensor:
    """A weight's value in the compute dtype of the running call, through which no gradient flows."""
    return tf.stop_gradient(keras.ops.convert_to_tensor(weight))
