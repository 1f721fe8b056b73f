"""The cost of a run that differs, with a small probability, from the run that is accounted for.

Where Poisson batches are cut off at a capacity, the run differs from one without a limit with a probability of at most
tau (`noisy_sgd.sampling.poisson`). If the run without a limit satisfies (epsilon, delta), the run with the
capacity satisfies

    (epsilon, delta + (1 + e^epsilon) tau)

once tau for the data set, and e^epsilon times tau for its neighbor.

    delta_added(8.0, 1e-13)    # 3e-10
"""

import math
from collections.abc import Callable

_LARGEST_EXPONENT = 700.0


def delta_added(epsilon: float, overflow: float) -> float:
    """What is added to delta: (1 + e^epsilon) tau.

    Args:
        epsilon: of the run without a limit.
        overflow: tau, the probability that any step differs.

    Returns:
        A number at least 0; from 1 on, nothing is guaranteed.
    """
    if overflow == 0:
        return 0.0
    return math.inf if epsilon > _LARGEST_EXPONENT else (1 + math.exp(epsilon)) * overflow


def epsilon_within(epsilon_at: Callable[[float], float], delta: float, overflow: float) -> float:
    """The smallest epsilon found for a total delta, which includes what the capacity adds.

    Args:
        epsilon_at: delta -> epsilon of the run without a limit.
        delta: the total that may be spent.
        overflow: tau, as in `delta_added`.

    Returns:
        An epsilon with epsilon_at(delta - (1 + e^epsilon) tau) <= epsilon; infinity where none is found.
    """
    if overflow == 0:
        return epsilon_at(delta)
    # Each try from below is a little above what the try before needed, so that the first one that is enough is near
    # the smallest.
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
