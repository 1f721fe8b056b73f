"""What it costs to cut Poisson batches off at a fixed capacity, as a compiled program of one shape must.

A batch of Poisson sampling has Binomial(N, q) examples. Where only M of them fit, the run differs from one without a
limit only if some batch overflows, which has at most the probability

    tau = sum over steps of P(Binomial(N, q) > M)

Whatever the run without a limit satisfies with (epsilon, delta), the one that was cut off satisfies with

    (epsilon, delta + (1 + e^epsilon) tau)

once tau for the data set, and e^epsilon times tau for its neighbour.

    1000 * overflow_probability(4096, 50000, 4608)                    # 1e-13, for a thousand steps
    delta_added(8.0, 1000 * overflow_probability(4096, 50000, 4608))   # 3e-10
"""

import math
from collections.abc import Callable

from scipy import stats

from noisy_sgd.privacy import arguments

# SciPy's tail of the binomial is good to 1e-10 of itself and better, and rounds to 0 what no double holds.
_ROUNDED_UP = 1 + 1e-9
_LEAST_PROBABILITY = 5e-324
_LARGEST_EXPONENT = 700.0


def overflow_probability(batch_size: int, num_examples: int, capacity: int) -> float:
    """P(Binomial(N, q) > M), q = B / N, for one step; rounded up.

    Args:
        batch_size: expected batch size B.
        num_examples: number of training examples N.
        capacity: M, how many examples fit.

    Returns:
        A probability, 0 only where everything fits.

    Raises:
        ValueError: for an argument out of its range.
    """
    batch_size, num_examples = arguments.batch(batch_size, num_examples)
    capacity = arguments.count("capacity", capacity)
    if capacity >= num_examples:
        return 0.0
    tail = float(stats.binom.sf(capacity, num_examples, batch_size / num_examples))
    return min(1.0, max(tail * _ROUNDED_UP, _LEAST_PROBABILITY))


def delta_added(epsilon: float, overflow: float) -> float:
    """What is added to delta: (1 + e^epsilon) tau.

    Args:
        epsilon: of the run without a limit.
        overflow: tau, the sum of `overflow_probability` over all steps.

    Returns:
        A number at least 0; from 1 on, nothing is guaranteed.
    """
    if overflow == 0:
        return 0.0
    return math.inf if epsilon > _LARGEST_EXPONENT else (1 + math.exp(epsilon)) * overflow


def epsilon_within(epsilon_at: Callable[[float], float], delta: float, overflow: float) -> float:
    """The least epsilon found that holds with all of delta, what the cut-off adds to it included.

    Args:
        epsilon_at: delta -> epsilon of the run without a limit.
        delta: what may be spent in all.
        overflow: tau, as in `delta_added`.

    Returns:
        An epsilon with epsilon_at(delta - (1 + e^epsilon) tau) <= epsilon; infinity where none is found.
    """
    if overflow == 0:
        return epsilon_at(delta)
    # From below, each try a little above what the one before turned out to need: so the first that is enough is near
    # the least.
    epsilon = 0.0
    for _ in range(100):
        left = delta - delta_added(epsilon, overflow)
        if left <= 0:
            return math.inf
        needed = epsilon_at(left)
        if needed <= epsilon:
            return epsilon
        epsilon = needed * (1 + 1e-6)
    return math.inf
