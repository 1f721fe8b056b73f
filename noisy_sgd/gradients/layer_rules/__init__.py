"""How a kind of layer yields the norms and sums of its per-example gradients.

`registry` explains how to write a rule for your own layer. Importing this package registers the rules for Keras' layers
and for those of `noisy_sgd.models`.
"""

from noisy_sgd.gradients.layer_rules import (  # noqa: F401 - importing a module of rules registers them
    convolution,
    convolution_parts,
    copied,
    dense,
    embedding,
    keras_hub,
    normalization,
    recurrent,
    reversible_embedding,
    scale,
    weight_standardized,
)
from noisy_sgd.gradients.layer_rules.shared.contributions import (
    SPARE_BYTES,
    Contribution,
    Microbatch,
    Route,
    choose,
    kept,
)
from noisy_sgd.gradients.layer_rules.shared.registry import (
    Call,
    NoRuleError,
    Rule,
    Tape,
    Traced,
    constant,
    parts,
    register,
    rule_for,
    weights,
)

__all__ = [
    "SPARE_BYTES",
    "Call",
    "Contribution",
    "NoRuleError",
    "Route",
    "Rule",
    "Microbatch",
    "Tape",
    "Traced",
    "choose",
    "constant",
    "kept",
    "parts",
    "register",
    "rule_for",
    "scale",
    "weights",
]
