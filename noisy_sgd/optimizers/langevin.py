"""DP-SGLD: stochastic gradient Langevin dynamics, whose own noise is the noise of DP-SGD (Knolle et al. 2021).

SGLD (Welling and Teh 2011) samples the posterior of weights w with the Gaussian prior N(0, I / p), at temperature T:

    w <- w + (eta/2) ( -p w - (N/B) sum_i grad loss_i ) + N(0, eta T I)

With every example's gradient clipped to norm C (arXiv 2107.04296), it is, term by term, DP-SGD with weight decay:

    w <- w - lr ( (1/B) ( sum_i clip_C(grad loss_i) + N(0, (sigma C)^2 I) ) + d w )
    lr = eta N / 2        lr sigma C / B = sqrt(eta T), so that sigma = 2 B sqrt(T) / (N C sqrt(eta))        d = p / N

`dp_sgld` computes the right-hand sides and returns a `noisy_sgd.DPSGD`, with its epsilon. The loss must be the negative
log-likelihood of an example. The step size is constant: DP-SGD with a decaying learning rate and its constant noise is
SGLD at a temperature that falls in proportion to the rate (`temperature`).

    optimizer = noisy_sgd.dp_sgld(1e-5, l2_norm_clip=1.0, batch_size=256, num_examples=60_000)
    eta = langevin.step_size(1.1, l2_norm_clip=1.0, batch_size=256, num_examples=60_000)    # where sigma = 1.1
"""

import math

from noisy_sgd import checks
from noisy_sgd.optimizers import sgd


def dp_sgld(
    step_size: float,
    l2_norm_clip: float,
    batch_size: int,
    num_examples: int,
    *,
    temperature: float = 1.0,
    prior_precision: float = 0.0,
    seed: int | None = None,
    clipping="flat",
    name: str = "dp_sgld",
) -> sgd.DPSGD:
    """The `noisy_sgd.DPSGD` that is SGLD with clipped gradients.

    Args:
        step_size: eta, positive; of the sum over all examples, so of the order of 1 / num_examples or less.
        l2_norm_clip: C, positive and finite.
        batch_size: B.
        num_examples: N, the number of training examples, at least B.
        temperature: T, at least 0; 1 samples the posterior. At 0 there is no noise and nothing is private. Defaults to
            1.0.
        prior_precision: p, at least 0. Defaults to 0.0, a flat prior.
        seed: as in `noisy_sgd.DPSGD`. Defaults to None, a secret noise key.
        clipping: as in `noisy_sgd.DPSGD`. Defaults to "flat".
        name: Defaults to "dp_sgld".

    Raises:
        ValueError: for an argument out of range.
    """
    step_size = checks.real("step_size", step_size, above=0)
    clip = checks.real("l2_norm_clip", l2_norm_clip, above=0)
    batch_size, num_examples = checks.batch(batch_size, num_examples)
    temperature = checks.real("temperature", temperature, least=0)
    precision = checks.real("prior_precision", prior_precision, least=0)
    return sgd.DPSGD(
        step_size * num_examples / 2,
        clip,
        2 * batch_size * math.sqrt(temperature) / (num_examples * clip * math.sqrt(step_size)),
        batch_size,
        seed=seed,
        clipping=clipping,
        weight_decay=precision / num_examples or None,
        name=name,
    )


def step_size(
    noise_multiplier: float, l2_norm_clip: float, batch_size: int, num_examples: int, *, temperature: float = 1.0
) -> float:
    """eta = 4 B^2 T / (N C sigma)^2, the step size at which SGLD has the noise that a budget asks for.

    Args:
        noise_multiplier: sigma, positive; such as that of `noisy_sgd.privacy.noise_multiplier_for`.
        l2_norm_clip: C, positive and finite.
        batch_size: B.
        num_examples: N, at least B.
        temperature: T, positive. Defaults to 1.0.

    Raises:
        ValueError: for an argument out of range.
    """
    sigma = checks.real("noise_multiplier", noise_multiplier, above=0)
    clip = checks.real("l2_norm_clip", l2_norm_clip, above=0)
    batch_size, num_examples = checks.batch(batch_size, num_examples)
    return 4 * batch_size**2 * checks.real("temperature", temperature, above=0) / (num_examples * clip * sigma) ** 2


def temperature(
    learning_rate: float, noise_multiplier: float, l2_norm_clip: float, batch_size: int, num_examples: int
) -> float:
    """T = lr N (sigma C / B)^2 / 2, the temperature of DP-SGD with a learning rate, read as SGLD.

    Args:
        learning_rate: lr, positive.
        noise_multiplier: sigma, at least 0.
        l2_norm_clip: C, positive and finite.
        batch_size: B.
        num_examples: N, at least B.

    Raises:
        ValueError: for an argument out of range.
    """
    rate = checks.real("learning_rate", learning_rate, above=0)
    sigma = checks.real("noise_multiplier", noise_multiplier, least=0)
    clip = checks.real("l2_norm_clip", l2_norm_clip, above=0)
    batch_size, num_examples = checks.batch(batch_size, num_examples)
    return rate * num_examples * (sigma * clip / batch_size) ** 2 / 2
