"""Poisson sampling: each example is in each step's batch independently, with probability q = B / N.

To an adversary who does not know the batches, an example is in few of the steps: sampling amplifies the privacy of the
steps. Batches have any size, B on average, and no empty batch may be skipped.

Where a compiled program holds only M examples, `CappedPoisson` keeps M of a larger draw. A batch has Binomial(N, q)
examples, so that the run differs from one without a limit with a probability of at most

    tau = sum over steps of P(Binomial(N, q) > M)

If the run without a limit satisfies (epsilon, delta), the capped run satisfies
(epsilon, delta + (1 + e^epsilon) tau): once tau for the data set, and e^epsilon times tau for its neighbor.

    scheme = poisson.Poisson(num_examples=60_000, batch_size=256, seed=7)
    scheme.participation(1_000)                                   # 1,000 times with probability 256 / 60,000
    1000 * poisson.overflow_probability(4096, 50_000, 4608)       # 1e-13, for a thousand steps
"""

import numpy as np
from scipy import stats

from noisy_sgd import checks
from noisy_sgd.sampling import scheme

# SciPy's tail of the binomial has a relative error of at most 1e-10, and underflows to 0.
_ROUNDED_UP = 1 + 1e-9
_LEAST_PROBABILITY = 5e-324


class Poisson(scheme.Scheme):
    """Each example is in each batch independently, with probability B / N.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B, expected size of a batch.
        seed: integer, or a secret's bytes; the batches are a function of it alone, and independent of the noise that
            the same seed draws. Defaults to None, for accounting alone.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    name = "poisson"
    amplifies = True

    def size(self, step: int) -> int:
        """Number of examples of a step's batch."""
        return len(self.indices(step))

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, in increasing order, int64 [size(step)]."""
        return self._included(step)[0]

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """In every step with probability q; possibly in every step where the batches are known."""
        times = checks.count("num_steps", num_steps, least=0)
        if batches_known:
            return scheme.Participation(times=times)
        return scheme.Participation(times=times, probability=self.batch_size / self.num_examples)

    def counted_steps(self, first: int, end: int) -> int:
        """Every step of every attempt is one more independent draw."""
        return end - first

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        probability = self.batch_size / self.num_examples
        text = f"Poisson, each of {self.num_examples} examples with probability {probability:g} at each step"
        if batches_known:
            text += ", from a known seed and so without amplification: counted in every step"
        return text

    def _included(self, step):
        uniform = self._generator(scheme.checked_step(step)).random(self.num_examples)
        return np.flatnonzero(uniform < self.batch_size / self.num_examples), uniform


class CappedPoisson(Poisson):
    """Poisson batches of which at most `capacity` examples are kept, drawn evenly.

    Args:
        num_examples: as in `Poisson`, like all that follow.
        batch_size: B.
        seed: Defaults to None.
        capacity: M, the largest size of a batch; at least 1.

    Raises:
        ValueError: as in `Poisson`, or for a capacity below 1.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int | bytes | None = None, *, capacity: int):
        super().__init__(num_examples, batch_size, seed)
        self.capacity = checks.count("capacity", capacity)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, in increasing order, int64 [size(step)]."""
        included, uniform = self._included(step)
        if len(included) > self.capacity:
            included = np.sort(included[np.argsort(uniform[included])[: self.capacity]])
        return included

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """As in Poisson sampling, except for runs in which a draw overflows."""
        uncapped = super().participation(num_steps, batches_known=batches_known)
        if batches_known:
            return uncapped
        overflow = uncapped.times * overflow_probability(self.batch_size, self.num_examples, self.capacity)
        return scheme.Participation(times=uncapped.times, probability=uncapped.probability, overflow=overflow)

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        text = super().in_words(num_steps, batches_known=batches_known)
        return text if batches_known else f"{text}; batches are cut off at {self.capacity} examples"


def overflow_probability(batch_size: int, num_examples: int, capacity: int) -> float:
    """P(Binomial(N, q) > M), q = B / N, for one step; rounded up.

    Args:
        batch_size: expected batch size B.
        num_examples: number of training examples N.
        capacity: M, how many examples fit.

    Returns:
        A probability, 0 only where every batch fits.

    Raises:
        ValueError: for an argument out of its range.
    """
    batch_size, num_examples = checks.batch(batch_size, num_examples)
    capacity = checks.count("capacity", capacity)
    if capacity >= num_examples:
        return 0.0
    tail = float(stats.binom.sf(capacity, num_examples, batch_size / num_examples))
    return min(1.0, max(tail * _ROUNDED_UP, _LEAST_PROBABILITY))
