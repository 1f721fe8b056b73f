"""Random sparsification: in each step only some coordinates of the gradients count, fewer and fewer.

With m_t in {0, 1}^d drawn without the data (Zhu and Blaschko 2023, arXiv 2112.00845),

    w <- w - lr (1/B) ( sum_i clip_C(m_t * grad loss_i) + m_t * N(0, sigma^2 C^2 I) )

The mask comes before the clip, so that less of a gradient is clipped away, and the noise has fewer coordinates. The
cost is that of DP-SGD. Two choices differ from the paper's code: the mask is drawn anew in every step, not in every
epoch, and each coordinate is left out independently, so that the fraction left out is the rate on average only.

The norm of a masked gradient is exact. For a Dense layer on one vector per example it costs one matrix product more, on
CPUs. The norms of other layers come from products that a mask on coordinates would break: for a model with one of them
engine="auto" forms every example's gradient (`noisy_sgd.gradients.engines.vectorized`), which is an order of magnitude
slower and needs memory of microbatch size times weights.

    optimizer = noisy_sgd.DPSparseSGD(
        0.5, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256, final_rate=0.9, ramp_steps=1_000
    )
"""

import dataclasses

import keras
import tensorflow as tf

from noisy_sgd.gradients import clipping as clip_functions
from noisy_sgd.mechanisms import sparsified
from noisy_sgd.optimizers import privatized


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPSparseSGD(privatized.PrivateUpdate, keras.optimizers.SGD):
    """SGD on the noised mean of gradients that are masked and then clipped. With `final_rate=0.0` it is DPSGD.

    See `noisy_sgd.PrivateUpdate` for the noise, its key, and what is refused. Epsilon is that of DP-SGD with the same
    clip, noise and batches.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's masked gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor; a positive integer.
        final_rate: the fraction of the coordinates that is left out in the end, in [0, 1).
        ramp_steps: the number of steps over which the rate rises from 0 to `final_rate`, at least 1.
        mask_seed: integer, the seed of the masks. It is public. Defaults to 0.
        **kwargs: `seed`, `clipping`, `adaptive_clipping` and `noise` of `noisy_sgd.PrivateUpdate`; `momentum`,
            `nesterov`, `weight_decay` and others of `keras.optimizers.SGD`.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """

    def __init__(
        self,
        learning_rate,
        l2_norm_clip,
        noise_multiplier,
        batch_size,
        *,
        final_rate,
        ramp_steps,
        mask_seed=0,
        name="dp_sparse_sgd",
        **kwargs,
    ):
        chosen = sparsified.RandomCoordinates(final_rate, ramp_steps, mask_seed)
        super().__init__(learning_rate, l2_norm_clip, noise_multiplier, batch_size, name=name, **kwargs)
        self._chosen = chosen
        if chosen.final_rate:
            self._mechanism = sparsified.Sparsified(self._mechanism, chosen)

    @property
    def clip(self) -> clip_functions.ClipFunction:
        """The clip function that a sum needs to be clipped with for `apply`, with the coordinates of this step."""
        coordinates = self.coordinates if self._chosen.final_rate else None
        return dataclasses.replace(super().clip, coordinates=coordinates)

    def coordinates(self, weights) -> list[tf.Tensor]:
        """The mask of the step to come, one tensor of 0 and 1 per weight; for `noisy_sgd.clipped_gradient_sum`.

        A sum that was not masked before it was clipped is masked by `apply`, which is as private but another algorithm.

        Args:
            weights: all weights that are trained.
        """
        return self._chosen.of(list(weights), tf.convert_to_tensor(self.iterations))

    def get_config(self):
        """The arguments that rebuild this optimizer, without a secret noise key."""
        chosen = self._chosen
        own = {"final_rate": chosen.final_rate, "ramp_steps": chosen.ramp_steps, "mask_seed": chosen.seed}
        return {**super().get_config(), **own}
