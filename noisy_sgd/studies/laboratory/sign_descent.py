"""Sign descent, and its private version: the sign of the privatized gradient is post-processing and costs nothing more.

w <- w - lr sign(g),     g the mean gradient, or that of clipped gradients with its noise

optimizer = DPSignSGD(2**-8, l2_norm_clip=1.0, noise_multiplier=2.0, batch_size=64)
"""

import keras
from keras import ops

from noisy_sgd.optimizers import privatized


class SignSGD(keras.optimizers.Optimizer):
    """Sign descent (Bernstein et al. 2018, arXiv 1802.04434).

    Args:
        learning_rate: what each weight moves by in a step.
        name: Defaults to "sign_sgd".
        **kwargs: as of `keras.optimizers.Optimizer`.
    """

    def __init__(self, learning_rate, name="sign_sgd", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        """Sign descent's step on one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * ops.sign(ops.cast(gradient, variable.dtype)))


class DPSignSGD(privatized.PrivateUpdate, SignSGD):
    """DP-SignSGD: see `noisy_sgd.PrivateUpdate` for its arguments."""
