"""The four arms of the paper's question: the ordinary gradient, with noise, with clipping, and with both.

    plain        w <- w - lr g                                 SGD
    noise        w <- w - lr (g + std Z)                       Noisy-SGD (eq. (11))
    clip         w <- w - lr (1/B) sum_i clip_C(g_i)           clipping without noise
    noise_clip   w <- w - lr ((1/B) sum_i clip_C(g_i) + std Z) DP-SGD (eq. (2)), std = sigma C / B

The noise has the same standard deviation on the mean gradient in both arms that have noise. It may be correlated over
steps: a step that has all its draws then has this standard deviation.

    optimizer = arms.optimizer("noise_clip", batch_size=64, noise_std=0.006, l2_norm_clip=4.0)

Covered by tests/studies/laboratory/training_test.py.
"""

import math
from collections.abc import Sequence

from noisy_sgd import checks
from noisy_sgd.mechanisms import correlated
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies.laboratory import settings

PLAIN, NOISE, CLIP, NOISE_CLIP = settings.ARMS


def optimizer(
    name: str, *, batch_size: int, noise_std: float, l2_norm_clip: float, coefficients: Sequence[float] = (1.0,)
) -> sgd.NoisySGD | sgd.DPSGD:
    """The optimizer of an arm; `Trainer.start` sets its learning rate and its noise's seed.

    Args:
        name: one of `settings.ARMS`.
        batch_size: B.
        noise_std: standard deviation of the noise on the mean gradient, sigma / B; not read without noise.
        l2_norm_clip: C; not read without clipping.
        coefficients: of the noise's draws, scaled here to a norm of 1. Defaults to (1.0,), independent noise.
    """
    checks.choice("arm", name, settings.ARMS)
    scale = noise_std if name in (NOISE, NOISE_CLIP) else 0.0
    noise = correlated.CorrelatedNoise([each / math.hypot(*coefficients) for each in coefficients])
    if name in (PLAIN, NOISE):
        return sgd.NoisySGD(1.0, scale, seed=0, noise=noise)
    return sgd.DPSGD(1.0, l2_norm_clip, scale * batch_size / l2_norm_clip, batch_size, seed=0, noise=noise)
