"""A network that is pruned by a fixed mask: the perceptron of `networks`, with a masked hidden kernel.

    y = activation(x (M * W) + b)          dL_i/dW = M * x_i dz_i^T          ||dL_i/dW||^2 = x_i^2 M (dz_i^2)^T

M holds 0 and 1. The mask is in the layer, so every per-example gradient is masked before its norm is taken and before
it is clipped; the sensitivity of the sum stays C. What noise adds to a pruned weight is removed by the constraint of
the kernel after each update. The constraint does not depend on the data, so it costs no privacy. A mask must not depend
on the private data either.

The kernel of the logits stays whole: it has few weights, and without them some classes have no input.

    network = masked.builder(data, width=128)
    weights = masked.pruned(network(3), kernels, fraction=0.95)    # the model's variables, for `Trainer.start`
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.gradients import layer_rules
from noisy_sgd.models import initialization, pixels
from noisy_sgd.studies.laboratory import images, networks
from noisy_sgd.training import private_model


class MaskedDense(keras.layers.Layer):
    """A dense layer whose kernel is multiplied by a fixed mask; the kernel is 0 where the mask is 0.

    Args:
        units: number of outputs.
        activation: as in Keras. Defaults to none.
        kernel_initializer: as in Keras.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, units: int, activation=None, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        """Creates the mask of ones, the kernel, and the bias of zeros."""
        shape = (input_shape[-1], self.units)
        self.kept = self.add_weight(shape=shape, initializer="ones", trainable=False, name="kept")
        self.kernel = self.add_weight(
            shape=shape, initializer=self.kernel_initializer, constraint=self.masked, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def masked(self, kernel):
        """The kernel with zeros where the mask is 0."""
        return kernel * keras.ops.convert_to_tensor(self.kept)

    def call(self, inputs):
        """The outputs of the masked kernel."""
        return self.activation(keras.ops.matmul(inputs, self.masked(self.kernel)) + self.bias)


def builder(data: images.Data, *, width: int) -> networks.Builder:
    """A function from a seed to the masked perceptron, whose initial kernels are those of `networks.builder("mlp")`.

    Args:
        data: whose images the network takes.
        width: units of the hidden layer.
    """

    def network(seed: int) -> private_model.PrivateModel:
        inputs, x = pixels.pixel_input(data.image_shape, data.pixel_range, None)
        x = keras.layers.Flatten(name="flatten")(x)
        x = MaskedDense(width, "relu", _initializer(seed, "hidden1"), name="hidden1")(x)
        logits = keras.layers.Dense(data.num_classes, kernel_initializer=_initializer(seed, "logits"), name="logits")
        return private_model.PrivateModel(inputs, logits(x))

    return network


def kernels(model: keras.Model) -> list[np.ndarray]:
    """The kernels of the model's layers."""
    return [layer.kernel.numpy() for layer in _layers_with_kernel(model)]


def pruned(model: keras.Model, source: Sequence[np.ndarray], fraction: float) -> list[np.ndarray]:
    """The values of the model's variables after magnitude pruning; the model is changed.

    Args:
        model: of `builder`; for a fraction of 0 also of `networks.builder("mlp")`, which has no mask.
        source: the kernels to start from, whose smallest weights are pruned.
        fraction: of the weights of the hidden kernel that are pruned, in [0, 1).

    Returns:
        The model's variables, with the mask, and with the source where it is kept.

    Raises:
        ValueError: for a fraction out of range, or a model without a mask that is to be pruned.
    """
    checks.require(0 <= fraction < 1, "fraction", "must be at least 0 and less than 1", fraction)
    layers = _layers_with_kernel(model)
    can_prune = any(isinstance(layer, MaskedDense) for layer in layers)
    checks.require(can_prune or fraction == 0, "fraction", "must be 0 for a model without a mask", fraction)
    for layer, kernel in zip(layers, source, strict=True):
        layer.kernel.assign(kernel)
        if isinstance(layer, MaskedDense):
            layer.kept.assign(mask(kernel, fraction))
            layer.kernel.assign(kernel * layer.kept.numpy())
    return [variable.numpy() for variable in model.variables]


def mask(kernel: np.ndarray, fraction: float) -> np.ndarray:
    """Zeros at the round(fraction * size) smallest magnitudes of a kernel, and ones elsewhere; float32."""
    kept = np.ones(kernel.size, np.float32)
    kept[np.argsort(np.abs(kernel), axis=None, kind="stable")[: round(fraction * kernel.size)]] = 0.0
    return kept.reshape(kernel.shape)


def _layers_with_kernel(model):
    return [layer for layer in model.layers if isinstance(layer, MaskedDense | keras.layers.Dense)]


def _initializer(seed, name):
    return keras.initializers.GlorotUniform(seed=initialization.layer_seed(seed, name))


def _forward(tape, layer, inputs):
    kernel = layer_rules.constant(layer.kernel) * layer_rules.constant(layer.kept)
    outputs = tape.tap(keras.ops.matmul(inputs, kernel) + layer_rules.constant(layer.bias))
    return layer_rules.Traced(outputs=layer.activation(outputs), taps=[outputs], saved=inputs)


def _gradients(layer, calls, microbatch):
    if len(calls) != 1 or microbatch.views != 1 or calls[0].saved.shape.rank != 2:
        raise layer_rules.NoRuleError(layer, "its rule is for one call, one view and inputs [B, channels]")
    inputs, slopes = (microbatch.cast(tensor) for tensor in (calls[0].saved, calls[0].tap_gradients[0]))
    kept = microbatch.cast(tf.convert_to_tensor(layer.kept))

    def sums(factors, tensors):
        inputs, slopes = tensors
        return [kept * tf.matmul(inputs, slopes * factors[:, None], transpose_a=True)]

    kernel = layer_rules.Contribution(
        weights=[layer.kernel],
        squared_norms=tf.reduce_sum(tf.matmul(tf.square(inputs), kept) * tf.square(slopes), axis=1),
        tensors=[inputs, slopes],
        sums=sums,
    )
    return [kernel, layer_rules.kept(layer.bias, slopes)]


layer_rules.register(MaskedDense, layer_rules.Rule(forward=_forward, gradients=_gradients))
