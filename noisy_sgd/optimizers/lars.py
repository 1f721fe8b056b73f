"""LARS, layerwise adaptive rate scaling: each weight steps by its own norm over its gradient's (You et al. 2017).

With g the gradient of one weight w, arXiv 1708.03888 scales it by a trust ratio before the step of SGD:

    ratio = trust_coefficient ||w|| / ||g||        w <- w - lr * ratio * g

In `DPLARS` and `NoisyLARS` g is the noised gradient, also in the ratio. The ratio of a private training is thus
computed from what is released already, and costs no privacy; a ratio of the gradient without noise would leak its norm.

    optimizer = noisy_sgd.DPLARS(10.0, l2_norm_clip=1.0, noise_multiplier=3.0, batch_size=4096, momentum=0.9)
"""

import math

import keras
import tensorflow as tf
from keras import ops

from noisy_sgd import checks
from noisy_sgd.optimizers import privatized, sgd


@keras.saving.register_keras_serializable(package="noisy_sgd")
class LARS(keras.optimizers.SGD):
    """SGD whose gradient is scaled weight by weight with a trust ratio.

    The ratio is 1 for weights of at most one axis (biases, scales), as is usual, and where either norm is 0. Momentum
    acts on the scaled gradient. Weight decay is Keras' decoupled one, which does not enter the ratio.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
            Defaults to 1.0.
        trust_coefficient: positive. Defaults to 0.001, as in the paper.
        trust_limits: the smallest and the largest ratio allowed; (1.0, 1.0) is SGD. Defaults to None, no limits.
        name: Defaults to "lars".
        **kwargs: `momentum`, `nesterov`, `weight_decay` and others of `keras.optimizers.SGD`.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, learning_rate=1.0, *, trust_coefficient=0.001, trust_limits=None, name="lars", **kwargs):
        coefficient = checks.real("trust_coefficient", trust_coefficient, above=0)
        limits = None if trust_limits is None else _limits(trust_limits)
        super().__init__(learning_rate, name=name, **kwargs)
        self.trust_coefficient = coefficient
        self._trust_limits = limits

    @property
    def trust_limits(self) -> tuple[float, float] | None:
        """The smallest and the largest ratio allowed, or None."""
        return self._trust_limits

    def update_step(self, gradient, variable, learning_rate):
        """The step of SGD on one weight with the scaled gradient."""
        # Under tf.distribute this is the sum over all replicas, with its noise.
        gradient = ops.cast(tf.convert_to_tensor(gradient), variable.dtype)
        if len(variable.shape) > 1:
            gradient = gradient * self._trust_ratio(gradient, ops.convert_to_tensor(variable))
        super().update_step(gradient, variable, learning_rate)

    def _trust_ratio(self, gradient, weight):
        length, slope = (ops.sqrt(ops.sum(ops.square(tensor))) for tensor in (weight, gradient))
        known = ops.logical_and(length > 0, slope > 0)
        ratio = self.trust_coefficient * length / ops.where(known, slope, ops.ones_like(slope))
        ratio = ops.where(known, ratio, ops.ones_like(ratio))
        return ratio if self._trust_limits is None else ops.clip(ratio, *self._trust_limits)

    def get_config(self):
        """The arguments that rebuild this optimizer."""
        limits = None if self._trust_limits is None else list(self._trust_limits)
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient, "trust_limits": limits}


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPLARS(privatized.PrivateUpdate, LARS):
    """LARS on the noised mean of clipped gradients. With `trust_limits=(1.0, 1.0)` it is `noisy_sgd.DPSGD`.

    See `noisy_sgd.PrivateUpdate` for the noise, its key, and what is refused. Epsilon is that of DP-SGD with the same
    clip, noise and batches.

    Args:
        learning_rate: as in `LARS`.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor; a positive integer.
        **kwargs: `seed`, `clipping`, `adaptive_clipping` and `noise` of `noisy_sgd.PrivateUpdate`; those of `LARS`.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """


@keras.saving.register_keras_serializable(package="noisy_sgd")
class NoisyLARS(sgd.NoisySGD, LARS):
    """LARS on the mean gradient with Gaussian noise. With `trust_limits=(1.0, 1.0)` it is `noisy_sgd.NoisySGD`.

    Args:
        learning_rate: as in `noisy_sgd.NoisySGD`, like all that follow.
        noise_std: standard deviation of the noise on the mean gradient.
        seed: integer, the seed of the noise.
        name: Defaults to "noisy_lars".
        **kwargs: others of `noisy_sgd.NoisySGD`, and `trust_coefficient` and `trust_limits` of `LARS`.

    Raises:
        ValueError: as `noisy_sgd.NoisySGD` and `LARS`.
    """

    def __init__(self, learning_rate, noise_std, *, seed, name="noisy_lars", **kwargs):
        super().__init__(learning_rate, noise_std, seed=seed, name=name, **kwargs)


def _limits(received) -> tuple[float, float]:
    pair = tuple(received) if isinstance(received, tuple | list) else ()
    holds = len(pair) == 2 and all(map(checks.is_real, pair)) and 0 <= pair[0] <= pair[1] and pair[0] < math.inf
    checks.require(holds, "trust_limits", "must be two numbers, 0 <= smallest <= largest, or None", received)
    return float(pair[0]), float(pair[1])
