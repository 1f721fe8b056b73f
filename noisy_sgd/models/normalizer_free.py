"""Layers of normalizer-free networks (Brock et al., 2021): no example's gradient depends on another example.

A weight-standardized convolution keeps the variance of its input because each output channel's kernel has mean 0 and
norm `gamma`:

    W_hat = gamma * gain * (W - mean(W)) / sqrt(max(var(W) * fan_in, epsilon))

mean and var over the fan-in of an output channel, gain [channels] trained. gamma undoes what the ReLU before the
convolution takes away (1 / sqrt(variance of a rectified normal)). A residual block adds alpha * skip gain * branch to
its shortcut; each block adds alpha^2 to the variance. It is known in advance, and the next block divides by its root
(`nf_resnet.input_scales`).

    y = WeightStandardizedConv2D(64, 3, padding="same", gamma=RELU_GAMMA)(keras.ops.relu(x))
"""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from noisy_sgd import checks

# DeepMind's and timm's estimate by simulation of sqrt(2 / (1 - 1/pi)) = 1.7128586.
RELU_GAMMA = 1.7139588594436646

EPSILON_FORMS = ("max", "add")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standardization:
    """A standardized kernel before its gain, with what its derivative needs. All of it in the precision of the weights.

    W_hat = gamma * gain * normalized. For u = gamma * gain * dL/dW_hat, and sums over the fan-in of each output
    channel,

        dL/dW = inverse_norm * (u - sum(u) / fan_in - curvature * normalized * sum(u * normalized))

    so that the squared norm of an example's dL/dW follows from three numbers of its dL/dW_hat: the squared norm, the
    sum, and the product with `normalized`.

    Attributes:
        normalized: (W - mean) * inverse_norm, of the kernel's shape [height, width, in, out].
        inverse_norm: [out].
        curvature: [out]; fan_in over the divisor of the variance (1 where it is biased), 0 where `epsilon` is the
            larger.
    """

    normalized: Any
    inverse_norm: Any
    curvature: Any


@keras.saving.register_keras_serializable(package="noisy_sgd")
class WeightStandardizedConv2D(keras.layers.Conv2D):
    """A 2-D convolution with scaled weight standardization, trained gain and bias.

    The kernel is standardized in the precision of the weights and cast to the compute dtype afterwards.

    Args:
        filters: number of output channels.
        kernel_size: as in `keras.layers.Conv2D`.
        gamma: constant factor of the kernel; `RELU_GAMMA` where a ReLU comes before. Defaults to 1.0.
        epsilon: bound (form "max") or summand (form "add") of var * fan_in. Defaults to 1e-4.
        epsilon_form: "max" for max(var * fan_in, epsilon), "add" for var * fan_in + epsilon. Defaults to "max".
        unbiased_variance: divides the variance by fan_in - 1 instead of fan_in. Defaults to False.
        gain_initializer: Defaults to "ones".
        **kwargs: as `keras.layers.Conv2D`.

    Raises:
        ValueError: for an unknown `epsilon_form`, a negative `epsilon`, or (when built) a fan-in of 1, which has no
            variance.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        gamma=1.0,
        epsilon=1e-4,
        epsilon_form="max",
        unbiased_variance=False,
        gain_initializer="ones",
        **kwargs,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        checks.choice("epsilon_form", epsilon_form, EPSILON_FORMS)
        checks.require(epsilon >= 0, "epsilon", "must not be negative", epsilon)
        self.gamma = float(gamma)
        self.epsilon = float(epsilon)
        self.epsilon_form = epsilon_form
        self.unbiased_variance = bool(unbiased_variance)
        self.gain_initializer = keras.initializers.get(gain_initializer)

    def add_weight(self, *args, **kwargs):
        # Autocast is off: a mean and a variance computed in bfloat16 would be wrong by a percent.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def build(self, input_shape):
        super().build(input_shape)
        if self.fan_in < 2:
            raise ValueError(
                "A weight-standardized convolution needs at least two weights per output channel; use "
                f"keras.layers.Conv2D here. Received: kernel shape={tuple(self.kernel.shape)}"
            )
        self.gain = self.add_weight(name="gain", shape=(self.filters,), initializer=self.gain_initializer)

    @property
    def fan_in(self) -> int:
        """Weights of one output channel."""
        return math.prod(self.kernel.shape[:-1])

    def standardization(self) -> Standardization:
        """The normalized kernel and the factors of its derivative."""
        kernel = ops.convert_to_tensor(self.kernel)
        divisor = self.fan_in - 1 if self.unbiased_variance else self.fan_in
        centered = kernel - ops.mean(kernel, axis=(0, 1, 2))
        variance_times_fan_in = ops.sum(ops.square(centered), axis=(0, 1, 2)) * (self.fan_in / divisor)
        if self.epsilon_form == "max":
            inverse_norm = ops.rsqrt(ops.maximum(variance_times_fan_in, self.epsilon))
            ruled_by_variance = ops.cast(variance_times_fan_in > self.epsilon, kernel.dtype)
        else:
            inverse_norm = ops.rsqrt(variance_times_fan_in + self.epsilon)
            ruled_by_variance = ops.ones_like(variance_times_fan_in)
        return Standardization(
            normalized=centered * inverse_norm,
            inverse_norm=inverse_norm,
            curvature=ruled_by_variance * (self.fan_in / divisor),
        )

    def standardized_kernel(self):
        """W_hat [height, width, in, out], in the precision of the weights: the kernel that the convolution uses."""
        return self.standardization().normalized * (self.gamma * ops.convert_to_tensor(self.gain))

    def call(self, inputs):
        outputs = self.convolution_op(inputs, ops.cast(self.standardized_kernel(), self.compute_dtype))
        if self.use_bias:
            channels_last = self.data_format == "channels_last"
            bias = ops.cast(self.bias, self.compute_dtype)
            outputs = outputs + (bias if channels_last else ops.reshape(bias, (1, self.filters, 1, 1)))
        return self.activation(outputs)

    def save_own_variables(self, store):
        # Keras' convolution saves only its kernel and its bias, by name, not the gain.
        super().save_own_variables(store)
        if self.built:
            store["gain"] = self.gain

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built:
            self.gain.assign(store["gain"])

    def get_config(self):
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "epsilon": self.epsilon,
            "epsilon_form": self.epsilon_form,
            "unbiased_variance": self.unbiased_variance,
            "gain_initializer": keras.initializers.serialize(self.gain_initializer),
        }


@keras.saving.register_keras_serializable(package="noisy_sgd")
class SkipGain(keras.layers.Layer):
    """A residual branch times one trained number and a constant: y = alpha * gain * x (De and Smith, 2020).

    Args:
        initial_gain: the gain before training; 0 makes every block start as its shortcut. Defaults to 1.0.
        alpha: constant factor, not trained. Defaults to 1.0.
        **kwargs: as `keras.layers.Layer`.
    """

    def __init__(self, initial_gain=1.0, *, alpha=1.0, **kwargs):
        super().__init__(**kwargs)
        self.initial_gain = float(initial_gain)
        self.alpha = float(alpha)

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.initial_gain)
        self.gain = self.add_weight(name="gain", shape=(), initializer=initializer, autocast=False)

    def call(self, inputs):
        return inputs * ops.cast(self.alpha * ops.convert_to_tensor(self.gain), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial_gain": self.initial_gain, "alpha": self.alpha}
