"""Total amount of noise (TAN): the one number that decides epsilon where the noise multiplier is not small (above about
2).

Sander et al., "TAN without a burn" (arXiv 2210.03403): eta^2 = q^2 S / (2 sigma^2) with q = B / N, TAN = 1 / eta. A
schedule may be searched at small batches with sigma / B held constant, which leaves eta as it is, and only the final
run pays for the large batch.

    size = tan.eta(2.5, 16384, 1281167, 72000)           # 0.9706
    tan.epsilon_tan(size, 8e-7)                           # 8.22, where the accountants say 7.95 (RDP) and 7.47 (PLD)
    tan.scale_to_batch(2.5, 16384, 256)                   # 0.0390625: the noise multiplier at batch size 256
"""

import math

from noisy_sgd import checks


def eta(noise_multiplier: float, batch_size: int, num_examples: int, num_steps: int) -> float:
    """eta = (B / N) sqrt(S / 2) / sigma.

    Args:
        noise_multiplier: sigma, standard deviation of the noise on the sum, in clip norms; above 0.
        batch_size: B.
        num_examples: N.
        num_steps: S.

    Returns:
        eta, the inverse of the total amount of noise.

    Raises:
        ValueError: for an argument out of its range.
    """
    noise_multiplier = checks.real("noise_multiplier", noise_multiplier, above=0)
    batch_size, num_examples = checks.batch(batch_size, num_examples)
    num_steps = checks.count("num_steps", num_steps, least=0)
    return batch_size / num_examples * math.sqrt(num_steps / 2) / noise_multiplier


def epsilon_tan(eta: float, delta: float) -> float:
    """eps_TAN = eta^2 + 2 eta sqrt(log(1 / delta)): an estimate for plans, not a guarantee (`accounting.epsilon` is).

    Args:
        eta: from `eta`; at least 0.
        delta: in (0, 1).

    Returns:
        The estimate of epsilon.

    Raises:
        ValueError: for an argument out of its range.
    """
    eta = checks.real("eta", eta, least=0)
    delta = checks.real("delta", delta, above=0, below=1)
    return eta**2 + 2 * eta * math.sqrt(-math.log(delta))


def scale_to_batch(noise_multiplier: float, batch_size: int, new_batch_size: int) -> float:
    """The noise multiplier that keeps sigma / B when the batch size changes: sigma * B_new / B.

    Args:
        noise_multiplier: sigma at the batch size `batch_size`; at least 0.
        batch_size: B of the reference.
        new_batch_size: the other batch size.

    Returns:
        The noise multiplier at `new_batch_size`. Learning rate and steps stay as they are, and so does `eta`.

    Raises:
        ValueError: for an argument out of its range.
    """
    noise_multiplier = checks.real("noise_multiplier", noise_multiplier, least=0)
    return noise_multiplier * checks.count("new_batch_size", new_batch_size) / checks.count("batch_size", batch_size)
