"""Extrapolation by the previous noised gradient: EXTRAP-SGD without a second gradient per step (Lin et al. 2020).

arXiv 2006.05720 takes the gradient at a point ahead, found with the last gradient, which is at hand at no cost:

    u_t = w_t - c g_{t-1}        w_{t+1} = w_t - lr g_t,   g_t the gradient at u_t,   g_{-1} = 0

Where the model holds u, the point of the gradients, this is one step with an extrapolated gradient:

    u_{t+1} = u_t - lr ( g_t + a (g_t - g_{t-1}) ),   a = c / lr, the `extrapolation`

In `DPExtrapSGD` and `NoisyExtrapSGD` all gradients are noised ones. The private one computes its step from what is
released already, so that epsilon is that of DP-SGD. The noise of two steps adds up to (1 + a) Z_t - a Z_{t-1}.

    optimizer = noisy_sgd.DPExtrapSGD(0.5, l2_norm_clip=1.0, noise_multiplier=3.0, batch_size=4096, extrapolation=0.5)
"""

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import checks
from noisy_sgd.optimizers import privatized, sgd


@keras.saving.register_keras_serializable(package="noisy_sgd")
class ExtrapSGD(keras.optimizers.SGD):
    """SGD whose gradient is extrapolated by the previous one, which it keeps in one slot per weight.

    The model's weights are the points u that the gradients are taken at. Momentum acts on the extrapolated gradient.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
            Defaults to 0.01.
        extrapolation: a, at least 0; 0 is SGD. Defaults to 1.0.
        name: Defaults to "extrap_sgd".
        **kwargs: `momentum`, `nesterov`, `weight_decay` and others of `keras.optimizers.SGD`.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, learning_rate=0.01, *, extrapolation=1.0, name="extrap_sgd", **kwargs):
        extrapolation = checks.real("extrapolation", extrapolation, least=0)
        super().__init__(learning_rate, name=name, **kwargs)
        self._extrapolation = extrapolation

    @property
    def extrapolation(self) -> float:
        """The coefficient a of the difference of two gradients."""
        return self._extrapolation

    def build(self, variables):
        """Creates the momentum slots, and those of the previous gradient."""
        if self.built:
            return
        super().build(variables)
        self.previous = self.add_optimizer_variables(variables, "previous_gradient") if self._extrapolation else []

    def update_step(self, gradient, variable, learning_rate):
        """The step of SGD on one weight with the extrapolated gradient."""
        # Under tf.distribute this is the sum over all replicas, with its noise.
        gradient = ops.cast(tf.convert_to_tensor(gradient), variable.dtype)
        if not self._extrapolation:
            super().update_step(gradient, variable, learning_rate)
            return
        previous = self.previous[self._get_variable_index(variable)]
        ahead = gradient + self._extrapolation * ops.subtract(gradient, previous)
        self.assign(previous, gradient)
        super().update_step(ahead, variable, learning_rate)

    def get_config(self):
        """The arguments that rebuild this optimizer."""
        return {**super().get_config(), "extrapolation": self._extrapolation}


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPExtrapSGD(privatized.PrivateUpdate, ExtrapSGD):
    """SGD extrapolated by the previous noised mean of clipped gradients. With `extrapolation=0.0` it is DPSGD.

    See `noisy_sgd.PrivateUpdate` for the noise, its key, and what is refused. Epsilon is that of DP-SGD with the same
    clip, noise and batches.

    Args:
        learning_rate: as in `ExtrapSGD`.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor; a positive integer.
        **kwargs: `seed`, `clipping`, `adaptive_clipping` and `noise` of `noisy_sgd.PrivateUpdate`; those of
            `ExtrapSGD`.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """


@keras.saving.register_keras_serializable(package="noisy_sgd")
class NoisyExtrapSGD(sgd.NoisySGD, ExtrapSGD):
    """SGD extrapolated by the previous noised mean gradient. With `extrapolation=0.0` it is NoisySGD.

    Args:
        learning_rate: as in `noisy_sgd.NoisySGD`, like all that follow.
        noise_std: standard deviation of the noise on the mean gradient.
        seed: integer, the seed of the noise.
        name: Defaults to "noisy_extrap_sgd".
        **kwargs: others of `noisy_sgd.NoisySGD`, and `extrapolation` of `ExtrapSGD`.

    Raises:
        ValueError: as `noisy_sgd.NoisySGD` and `ExtrapSGD`.
    """

    def __init__(self, learning_rate, noise_std, *, seed, name="noisy_extrap_sgd", **kwargs):
        super().__init__(learning_rate, noise_std, seed=seed, name=name, **kwargs)
