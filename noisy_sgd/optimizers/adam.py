"""Adam and AdamW on clipped and noised gradients: DPAdam and DPAdamW.

Adam divides by the root of a moving average of squared gradients, and these squares contain the noise. Where
a coordinate's gradient is small, the average is the noise's variance Phi = (sigma C / B)^2, which is known. With
`noise_correction=True` Phi is subtracted (DP-AdamBC, Tang et al. 2024, arXiv 2312.14334):

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        m^ = m / (1 - b1^t)        v^ = v / (1 - b2^t)

    w <- w - lr m^ / (sqrt(v^) + epsilon)                     DPAdam (Kingma and Ba, as Keras has it)
    w <- w - lr m^ / sqrt(max(v^ - Phi, epsilon))             with `noise_correction`

Noise that is correlated over steps has the variance (sigma C / B)^2 sum_{j < t} c_j^2 in step t, counted from 1. What
is subtracted is averaged over the steps as v is, and corrected for its bias:

    Phi = (sigma C / B)^2 sum_{j < t} c_j^2 (1 - b2^(t - j)) / (1 - b2^t)

    optimizer = noisy_sgd.DPAdam(1e-3, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256)
"""

import keras
from keras import ops

from noisy_sgd.optimizers import privatized


class _NoiseCorrected(privatized.PrivateUpdate):
    """A mixin before Keras' Adam: with `noise_correction`, subtracts the noise's variance from the second moment."""

    def __init__(
        self,
        learning_rate,
        l2_norm_clip,
        noise_multiplier,
        batch_size,
        *,
        noise_correction=False,
        amsgrad=False,
        **kwargs,
    ):
        if not isinstance(noise_correction, bool):
            raise ValueError(f"`noise_correction` must be True or False. Received: {noise_correction=}")
        if noise_correction and kwargs.get("adaptive_clipping") is not None:
            raise ValueError(
                "`noise_correction` must be False where `adaptive_clipping` changes the bound: the noise's variance "
                "then differs from step to step. Received: noise_correction=True"
            )
        if noise_correction and amsgrad:
            raise ValueError(
                "`amsgrad` must be False with `noise_correction`, which needs the second moment itself. "
                "Received: amsgrad=True"
            )
        super().__init__(learning_rate, l2_norm_clip, noise_multiplier, batch_size, amsgrad=amsgrad, **kwargs)
        self.noise_correction = noise_correction

    def update_step(self, gradient, variable, learning_rate):
        """Adam's step on one variable."""
        if not self.noise_correction:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        unbiased_mean = mean / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        unbiased_square = square / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        of_gradients = ops.maximum(unbiased_square - self._noise_variance(step, variable.dtype), self.epsilon)
        self.assign_sub(variable, rate * unbiased_mean / ops.sqrt(of_gradients))

    def _noise_variance(self, step, dtype):
        """Phi, averaged over the steps as the second moment is."""
        whole = ops.cast(self.noise_std, dtype) ** 2
        shares = self.mechanism.variance_shares
        if len(shares) == 1:
            return whole
        ages = ops.maximum(step - ops.arange(len(shares), dtype=dtype), 0)
        weights = (1 - ops.power(ops.cast(self.beta_2, dtype), ages)) / (
            1 - ops.power(ops.cast(self.beta_2, dtype), step)
        )
        return whole * ops.sum(ops.cast(shares, dtype) * weights)

    def get_config(self):
        """The arguments that rebuild this optimizer, without a secret noise key."""
        return {**super().get_config(), "noise_correction": self.noise_correction}


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPAdam(_NoiseCorrected, keras.optimizers.Adam):
    """Adam on the noised mean of clipped gradients.

    See `noisy_sgd.PrivateUpdate` for the noise, its key, and what is refused. Epsilon is that of DP-SGD with the same
    clip, noise and batches: Adam's update of a private gradient costs nothing more.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor; a positive integer.
        noise_correction: whether the noise's variance is subtracted from the second moment (DP-AdamBC). `epsilon` is
            then the least value under the root. Defaults to False.
        **kwargs: `seed`, `clipping`, `adaptive_clipping` and `noise` of `noisy_sgd.PrivateUpdate`; `beta_1`, `beta_2`,
            `epsilon`, `amsgrad`, `weight_decay` and `name` of `keras.optimizers.Adam`, with its defaults.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPAdamW(_NoiseCorrected, keras.optimizers.AdamW):
    """AdamW on the noised mean of clipped gradients: `DPAdam` with decoupled weight decay.

    Args:
        learning_rate: as in `DPAdam`, like all that follow.
        l2_norm_clip: C.
        noise_multiplier: sigma.
        batch_size: B.
        noise_correction: Defaults to False.
        **kwargs: as in `DPAdam`; `weight_decay` defaults to 0.004, as in `keras.optimizers.AdamW`.

    Raises:
        ValueError: as `DPAdam`.
    """
