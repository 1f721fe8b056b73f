"""Are the gradients at the copies of a layer's weights, one copy per example, those that its own call gives?

An automatic rule (`automatic_rule`) runs the layer's call on copies of its weights. Equal outputs alone do not show
that the call depends on the copies as it does on the weights.

    own_gradients.agree(model, layer, weights, inputs, found, coarse=False)

Covered by tests/gradients/automatic_rule_test.py.
"""

import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals, keys
from noisy_sgd.gradients.trials import synthetic


def seeded(outputs, example, sources) -> tuple:
    """The arguments of `tape.gradient` for the gradients at `sources` of one number that depends on all outputs.

    Args:
        outputs: of the model, each [B, ...].
        example: the index of the only example whose outputs count; None for all.
        sources: tensors.
    """
    outputs = [output for output in outputs if output.dtype.is_floating]
    # Random, so that entries do not cancel, as those of probabilities would, which add up to 1.
    rng = keys.arbitrary(2)
    slopes = [rng.standard_normal(output.shape, np.float32) for output in outputs]
    for slope in slopes:
        others = [] if example is None else [row for row in range(len(slope)) if row != example]
        slope[others] = 0
    return outputs, sources, [tf.constant(slope, output.dtype) for slope, output in zip(slopes, outputs, strict=True)]


def agree(model, layer, weights, inputs, found, coarse: bool) -> bool:
    """Whether each example's gradients at the copies are its gradients for the weights in the layer's own call.

    Args:
        model: a Keras model.
        layer: one of its layers, with an automatic rule.
        weights: (weight, value) of the model's trained weights, as from `synthetic.moved_weights`.
        inputs: of `synthetic.COUNT` examples.
        found: for each example, the gradients (`seeded`) at its copies of the layer's weights, call after call; None
            for 0.
        coarse: whether matrix products are rounded to few bits.
    """
    values, own = {id(weight): value for weight, value in weights}, keras_internals.own_weights(layer)
    trained = [number for number, weight in enumerate(own) if id(weight) in values]
    watched = [values[id(own[number])] for number in trained]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(watched)
        outputs, _ = synthetic.stateless_call(model, weights, inputs, training=True)
    tolerance = {"tolerance": synthetic.OTHER_KERNELS} if coarse else {}
    for example, of_copies in enumerate(found):
        expected = tape.gradient(*seeded(outputs, example, watched), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for number, gradient in zip(trained, expected, strict=True):
            calls = [one for one in of_copies[number :: len(own)] if one is not None]
            total = sum(calls, np.zeros(own[number].shape))
            if not synthetic.nearly_equal(tf.convert_to_tensor(gradient), total, relative=True, **tolerance):
                return False
    return True
