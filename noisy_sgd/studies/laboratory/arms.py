"""The four arms of the paper's question: the ordinary gradient, with noise, with clipping, and with both.

    plain        w <- w - lr g                                 SGD
    noise        w <- w - lr (g + std Z)                       Noisy-SGD (eq. (11))
    clip         w <- w - lr (1/B) sum_i clip_C(g_i)           clipping without noise
    noise_clip   w <- w - lr ((1/B) sum_i clip_C(g_i) + std Z) DP-SGD (eq. (2)), std = sigma C / B

The noise has the same standard deviation on the mean gradient in both arms that have noise.

    optimizer = arms.optimizer("noise_clip", batch_size=64, noise_std=0.006, l2_norm_clip=4.0)

Covered by tests/studies/laboratory/training_test.py.
"""

from noisy_sgd import checks
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies.laboratory import settings


def optimizer(name: str, *, batch_size: int, noise_std: float, l2_norm_clip: float) -> sgd.NoisySGD | sgd.DPSGD:
    """The optimizer of an arm; `Trainer.start` sets its learning rate and its noise's seed.

    Args:
        name: one of `settings.ARMS`.
        batch_size: B.
        noise_std: standard deviation of the noise on the mean gradient, sigma / B; not read without noise.
        l2_norm_clip: C; not read without clipping.
    """
    checks.choice("arm", name, settings.ARMS)
    noise = noise_std if name in (settings.NOISE, settings.NOISE_CLIP) else 0.0
    if name in (settings.PLAIN, settings.NOISE):
        return sgd.NoisySGD(1.0, noise, seed=0)
    return sgd.DPSGD(1.0, l2_norm_clip, noise * batch_size / l2_norm_clip, batch_size, seed=0)
