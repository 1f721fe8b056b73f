"""Keras' layers with few weights that their own call combines with copies of them, one per example, see `scale`.

The scales of attention are numbers, or vectors that meet one more axis, that of the keys. PReLU has one slope per entry
of an example, and the LayerScale of Keras' ConvNeXt one factor per channel.

Covered by tests/gradients/layer_rules/copied_test.py.
"""

import keras

from noisy_sgd.gradients.layer_rules import scale
from noisy_sgd.gradients.layer_rules.shared import registry


def _axes_of_scores(layer, weight, axes):
    """The scale of the concatenated scores and that of AdditiveAttention meet [B, queries, keys, channels]."""
    inside = weight.name == "scale" and (isinstance(layer, keras.layers.AdditiveAttention) or layer.score_mode != "dot")
    return axes + 1 if inside else axes


for _layer_class in (keras.layers.Attention, keras.layers.AdditiveAttention):
    registry.register(_layer_class, scale.rule(rank=_axes_of_scores))
registry.register(keras.layers.PReLU, scale.rule())
registry.register_name("keras", ["LayerScale"], scale.rule())
