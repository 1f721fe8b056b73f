"""Group, layer and root-mean-square normalisation: y = gamma * normalized(x) + beta, example by example.

    dL_i/dgamma = sum_t dy_{i,t} * normalized_{i,t}          dL_i/dbeta = sum_t dy_{i,t}

Both sums are what the backward pass of group normalisation needs anyway, so that there norms and clipped sums cost
nothing.
"""

import math

import keras
import tensorflow as tf

from noisy_sgd.gradients.layer_rules import registry, scale
from noisy_sgd.models import group_normalization


def group_forward(layer, inputs, weights):
    rank = inputs.shape.rank
    axis = layer.axis % rank
    last = [0, *(a for a in range(1, rank) if a != axis), axis]
    x = tf.cast(tf.transpose(inputs, last), keras.backend.result_type(inputs.dtype, "float32"))
    channels, spatial = x.shape[-1], tf.shape(x)
    flat = tf.reshape(x, [-1, _size(x.shape[1:-1]), channels])
    ones = tf.ones([tf.shape(flat)[0], channels], flat.dtype)
    gamma = tf.cast(weights["gamma"], flat.dtype) if layer.scale else ones
    beta = tf.cast(weights["beta"], flat.dtype) if layer.center else tf.zeros_like(ones)
    outputs = tf.reshape(_normalize(flat, gamma, beta, groups=layer.groups, epsilon=layer.epsilon), spatial)
    outputs = tf.ensure_shape(outputs, x.shape)
    inverse = sorted(range(rank), key=last.__getitem__)
    return tf.cast(tf.transpose(outputs, inverse), layer.compute_dtype)


def _size(shape):
    return -1 if None in shape else math.prod(shape)


def _normalize(x, gamma, beta, *, groups, epsilon):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta over [n, T, channels], gamma and beta [n, channels].

    Its own derivative: TensorFlow's goes back through each reduction, in about twice the passes over the images.
    """
    channels = x.shape[-1]
    a_group = channels // groups

    def over_groups(sums):
        """[n, channels] -> the mean over a group's channels and positions, given to each of its channels."""
        means = tf.reduce_sum(tf.reshape(sums, [-1, groups, a_group]), axis=-1, keepdims=True)
        means = means / tf.cast(tf.shape(x)[1] * a_group, x.dtype)
        return tf.reshape(tf.repeat(means, a_group, axis=-1), [-1, channels])

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        mean = over_groups(tf.reduce_sum(x, axis=1))
        centered = x - mean[:, None]
        inverse = tf.math.rsqrt(over_groups(tf.reduce_sum(tf.square(centered), axis=1)) + epsilon)

        def backward(dy):
            d_beta = tf.reduce_sum(dy, axis=1)
            d_gamma = inverse * tf.reduce_sum(dy * centered, axis=1)
            mean_slope = over_groups(gamma * d_beta)
            scale_slope = over_groups(gamma * d_gamma)
            dx = dy * (inverse * gamma)[:, None] - centered * (tf.square(inverse) * scale_slope)[:, None]
            return dx - (inverse * mean_slope)[:, None], d_gamma, d_beta

        return centered * (inverse * gamma)[:, None] + beta[:, None], backward

    return normalize(x, gamma, beta)


def layer_forward(layer, inputs, weights):
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axes = sorted(axis % inputs.shape.rank for axis in layer.axis)
    centered = x - tf.reduce_mean(x, axis=axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=axes, keepdims=True)
    outputs = centered * tf.math.rsqrt(variance + layer.epsilon)
    if layer.scale:
        outputs = outputs * _against(weights["gamma"], outputs, axes)
    if layer.center:
        outputs = outputs + _against(weights["beta"], outputs, axes)
    return tf.cast(outputs, layer.compute_dtype)


def rms_forward(layer, inputs, weights):
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = sorted(axis % inputs.shape.rank for axis in axes)
    outputs = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=axes, keepdims=True) + layer.epsilon)
    return tf.cast(outputs * _against(weights["scale"], outputs, axes), layer.compute_dtype)


def _against(copies, outputs, axes):
    """Copies [n, *normalised axes] with axes of size 1 for the others."""
    sizes = iter(copies.shape[1:])
    shape = [next(sizes) if axis in axes else 1 for axis in range(1, outputs.shape.rank)]
    return tf.cast(tf.reshape(copies, [-1, *shape]), outputs.dtype)


def over_examples(layer):
    """A clause where the examples themselves would be normalised over."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if 0 in axes or getattr(layer, "rms_scaling", False):
        return f"it has axis={layer.axis}, rms_scaling={getattr(layer, 'rms_scaling', False)}"
    return None


registry.register(keras.layers.GroupNormalization, scale.rule(group_forward))
registry.register(group_normalization.GroupNormalization, scale.rule(group_forward))
registry.register(keras.layers.LayerNormalization, scale.rule(layer_forward, refusal=over_examples))
registry.register(keras.layers.RMSNormalization, scale.rule(rms_forward, refusal=over_examples))
