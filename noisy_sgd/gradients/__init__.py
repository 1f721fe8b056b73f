"""Clipped sums of per-example gradients, for any Keras model.

    import noisy_sgd
    clipped = noisy_sgd.gradients.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0)
    optimizer.apply(clipped, model.trainable_weights)    # a noisy_sgd.DPSGD with the same bound

A layer of your own, here y = x * gain, gets a rule for the fast engine by one call:

    from noisy_sgd.gradients import layer_rules

    def forward(layer, inputs, weights):    # weights: one copy per example, {"gain": [B, size of the gain]}
        return inputs * weights["gain"]

    noisy_sgd.gradients.register(Gain, layer_rules.scale.rule(forward))

What a user may use:

- `clipped_gradient_sum`, and its result `ClippedSum`.
- `register(layer_class, rule)`, `Rule`, and the other parts of a rule in `layer_rules`: for a rule of your own.
- `NoRuleError`, which says why the fast engine cannot serve a layer.
- `clipping`: the ways to clip, and the bound of each.

A name is loaded when it is first used, so importing the package is light.
"""

import importlib

_NAMES = {
    "ClippedSum": "noisy_sgd.gradients.clipping",
    "NoRuleError": "noisy_sgd.gradients.layer_rules",
    "Rule": "noisy_sgd.gradients.layer_rules",
    "clipped_gradient_sum": "noisy_sgd.gradients.clipped_sum",
    "register": "noisy_sgd.gradients.layer_rules",
}
_MODULES = ("clipping", "layer_rules")

__all__ = sorted((*_NAMES, *_MODULES))


def __getattr__(name: str):
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"noisy_sgd.gradients.{name}")
    else:
        raise AttributeError(f"module 'noisy_sgd.gradients' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
