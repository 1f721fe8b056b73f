"""Group, layer and root-mean-square normalization: y = gamma * normalized(x) + beta, example by example.

    dL_i/dgamma = sum_t dy_{i,t} * normalized_{i,t}          dL_i/dbeta = sum_t dy_{i,t}

The backward pass of group normalization computes both sums anyway, so that norms and clipped sums cost nothing there.

Covered by tests/gradients/layer_rules/rules_test.py and tests/models/group_normalization_test.py.
"""

import math

import keras
import tensorflow as tf

from noisy_sgd.gradients.layer_rules import scale
from noisy_sgd.gradients.layer_rules.shared import registry
from noisy_sgd.models import group_normalization


def group_forward(layer, inputs, weights):
    rank = inputs.shape.rank
    axis = layer.axis % rank
    last = [0, *(a for a in range(1, rank) if a != axis), axis]
    x = tf.cast(tf.transpose(inputs, last), keras.backend.result_type(inputs.dtype, "float32"))
    unknown = None in x.shape[1:-1]
    rows = [tf.shape(x)[0], -1] if unknown else [-1, math.prod(x.shape[1:-1])]
    flat = tf.reshape(x, [*rows, x.shape[-1]])
    weights = {name: tf.cast(tf.expand_dims(copies, 1), flat.dtype) for name, copies in weights.items()}
    missing = tf.ones([1, 1, x.shape[-1]], flat.dtype)
    gamma, beta = weights.get("gamma", missing), weights.get("beta", tf.zeros_like(missing))
    outputs = _normalize(flat, gamma, beta, groups=layer.groups, epsilon=layer.epsilon)
    outputs = tf.reshape(outputs, tf.shape(x))
    inverse = sorted(range(rank), key=last.__getitem__)
    return tf.cast(tf.transpose(outputs, inverse), layer.compute_dtype)


def _normalize(x, gamma, beta, *, groups, epsilon):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta over [n, T, channels], gamma and beta [n, 1, channels].

    It has its own derivative: TensorFlow's goes through each reduction, with about twice the passes over the images.
    """
    channels = x.shape[-1]
    a_group = channels // groups
    positions = tf.cast(tf.shape(x)[1], x.dtype) if x.shape[1] is None else x.shape[1]
    shares = tf.ones([a_group], x.dtype) / (positions * a_group)

    # One constant each: a Python number would become a new constant at every use.
    by_group, by_channel = tf.constant([-1, groups, a_group]), tf.constant([-1, 1, channels])
    over_positions, within_group = tf.constant(1), tf.constant(2)

    def over_groups(values):
        """[n, any, channels] -> the mean over a group's channels and all positions, for each of its channels."""
        sums = tf.reshape(tf.reduce_sum(values, axis=over_positions), by_group)
        return tf.reshape(tf.reduce_sum(sums, axis=within_group, keepdims=True) * shares, by_channel)

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        centered = x - over_groups(x)
        inverse = tf.math.rsqrt(over_groups(tf.square(centered)) + epsilon)

        def backward(dy):
            d_beta = tf.reduce_sum(dy, axis=over_positions, keepdims=True)
            d_gamma = inverse * tf.reduce_sum(dy * centered, axis=over_positions, keepdims=True)
            mean_slope = over_groups(gamma * d_beta)
            scale_slope = over_groups(gamma * d_gamma)
            dx = dy * (inverse * gamma) - centered * (tf.square(inverse) * scale_slope)
            return dx - inverse * mean_slope, d_gamma, d_beta

        return centered * (inverse * gamma) + beta, backward

    return normalize(x, gamma, beta)


def layer_forward(layer, inputs, weights):
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axes = sorted(axis % inputs.shape.rank for axis in layer.axis)
    centered = x - tf.reduce_mean(x, axis=axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=axes, keepdims=True)
    outputs = centered * tf.math.rsqrt(variance + layer.epsilon)
    # Keras stores gamma and beta in the order of `layer.axis`, such as [-1, 1], and reshapes them without a transpose.
    against = [-1, *(outputs.shape[axis] if axis in axes else 1 for axis in range(1, outputs.shape.rank))]
    if layer.scale:
        outputs = outputs * tf.cast(tf.reshape(weights["gamma"], against), outputs.dtype)
    if layer.center:
        outputs = outputs + tf.cast(tf.reshape(weights["beta"], against), outputs.dtype)
    return tf.cast(outputs, layer.compute_dtype)


def rms_forward(layer, inputs, weights):
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = sorted(axis % inputs.shape.rank for axis in axes)
    outputs = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=axes, keepdims=True) + layer.epsilon)
    # Keras broadcasts the scale against the last axes, whichever axes are normalized.
    copies = tf.cast(weights["scale"], outputs.dtype)
    missing = [1] * (outputs.shape.rank - copies.shape.rank)
    copies = tf.reshape(copies, [-1, *missing, *copies.shape[1:]])
    return tf.cast(outputs * copies, layer.compute_dtype)


def over_examples(layer):
    """Refuses a layer that normalizes over the examples."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if 0 in axes or getattr(layer, "rms_scaling", False):
        return f"it has axis={layer.axis}, rms_scaling={getattr(layer, 'rms_scaling', False)}"
    return None


registry.register(keras.layers.GroupNormalization, scale.rule(group_forward))
registry.register(group_normalization.GroupNormalization, scale.rule(group_forward))
registry.register(keras.layers.LayerNormalization, scale.rule(layer_forward, refusal=over_examples))
registry.register(keras.layers.RMSNormalization, scale.rule(rms_forward, refusal=over_examples))
# Its kernel is that of the layer in it, which it overwrites with the normalized one before each call in training.
registry.register_wrapper(keras.layers.SpectralNormalization)
