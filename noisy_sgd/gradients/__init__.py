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

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "ClippedSum": "noisy_sgd.gradients.clipping",
        "NoRuleError": "noisy_sgd.gradients.layer_rules",
        "Rule": "noisy_sgd.gradients.layer_rules",
        "clipped_gradient_sum": "noisy_sgd.gradients.clipped_sum",
        "register": "noisy_sgd.gradients.layer_rules",
    },
    ("clipping", "layer_rules"),
)
