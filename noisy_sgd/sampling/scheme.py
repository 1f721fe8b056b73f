"""What every sampling scheme states: which examples a step sees, and how one example takes part in a run.

To write your own scheme, derive a class from `Scheme`. It draws `indices(step)`, a pure function of (key, step), so
that a run can stop and resume anywhere. It states its `participation`, from which mechanisms price a run.

    class Everyone(Scheme):
        name = "everyone"
        def indices(self, step): return np.arange(self.num_examples)
        def size(self, step): return self.num_examples
        def participation(self, num_steps, *, batches_known=False): return Participation(times=num_steps)
        def counted_steps(self, first, end): return end - first

Covered by the tests of the schemes and tests/visitors_test.py.
"""

import abc
import bisect
import dataclasses
import math
from typing import ClassVar

import dp_accounting
import numpy as np
from dp_accounting import pld

from noisy_sgd import checks, keys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Participation:
    """How one example takes part in the steps of a run.

    Attributes:
        times: the largest number of steps in which the example can take part.
        probability: the probability with which it takes part in each of them, independently and secretly. Defaults to
            None: the adversary may assume that it takes part in all of them.
        separation: the smallest number of steps from one participation to the next. Defaults to 1.
        overflow: a bound on the probability that the run differs from this description, for example because a batch
            is cut off. Defaults to 0.
        length: the number of steps of the run, or more, if the steps in which the example can take part are a first one
            and every `separation`-th step after it, and no others. Mechanisms whose noise is correlated over steps need
            it. Defaults to None: nothing of this kind is known.
    """

    times: int
    probability: float | None = None
    separation: int = 1
    overflow: float = 0.0
    length: int | None = None

    def composed(self, event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
        """The event of a run whose steps are independent, each of them `event` on its batch.

        Args:
            event: of one step, on the examples that take part in it.
        """
        if self.times == 0:
            return dp_accounting.NoOpDpEvent()
        if isinstance(event, dp_accounting.NonPrivateDpEvent):
            return event
        return dp_accounting.SelfComposedDpEvent(self.sampled(event), self.times)

    def sampled(self, event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
        """What a step costs, or whatever is composed `times` times, where `event` is the cost of taking part in it."""
        return event if self.probability is None else dp_accounting.PoissonSampledDpEvent(self.probability, event)


class PricedEvent(dp_accounting.DpEvent, abc.ABC):
    """An event that states its own cost, for schemes that dp_accounting has no event for.

    Its attribute `event` is the event of a step for an adversary who knows the batches, who learns at least as much. A
    dataclass, so that `dataclasses.replace` can set `event`: the accountants set it to one Gaussian if they can.
    """

    event: dp_accounting.DpEvent

    @abc.abstractmethod
    def divergences(self, orders: np.ndarray) -> np.ndarray:
        """Upper bounds of the Renyi divergences at these orders, the larger one of adding and removing."""

    @abc.abstractmethod
    def privacy_loss(self, interval: float) -> pld.privacy_loss_distribution.PrivacyLossDistribution:
        """A privacy loss distribution that dominates this event's, on a grid of this spacing, add-or-remove."""

    @property
    def largest_interval(self) -> float:
        """The widest spacing of a grid that is fit for this event. Defaults to infinity."""
        return math.inf


class Scheme(abc.ABC):
    """How the batches of a run are drawn.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B, nominal size of a batch; at most N.
        seed: integer, or a secret's bytes; the batches are a function of it alone. Defaults to None, for accounting
            alone: the scheme then draws no batches.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    # The scheme's name in `sampling=...`.
    name: ClassVar[str]
    # The purpose of the scheme's key (one of `keys.PURPOSES`).
    purpose: ClassVar[str] = "inclusion"
    # Whether secret batches hide an example, so that sampling amplifies privacy.
    amplifies: ClassVar[bool] = False

    def __init__(self, num_examples: int, batch_size: int, seed: int | bytes | None = None):
        self.batch_size, self.num_examples = checks.batch(batch_size, num_examples)
        self._key = None if seed is None else keys.derive(seed, self.purpose)

    @abc.abstractmethod
    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, int64 [size(step)]."""

    @abc.abstractmethod
    def size(self, step: int) -> int:
        """Number of examples of a step's batch."""

    @abc.abstractmethod
    def participation(self, num_steps: int, *, batches_known: bool = False) -> Participation:
        """How one example takes part in steps 0 to num_steps - 1.

        Args:
            num_steps: at least 0.
            batches_known: whether the adversary knows who is in which batch, as with a recorded seed. Defaults to
                False.
        """

    @property
    def steps_per_epoch(self) -> int:
        """ceil(N / B)."""
        return -(-self.num_examples // self.batch_size)

    @property
    def stride(self) -> int:
        """The number of steps after which the cost of a run changes. Defaults to 1."""
        return 1

    @abc.abstractmethod
    def counted_steps(self, first: int, end: int) -> int:
        """How many steps of a run from step 0 to count for steps `first` to `end` - 1 of one attempt at a run.

        The counts of several attempts, each with batches and noise of its own, are added. So the participation in the
        sum must be at least the sum of what an example can take part in; a count is at least `end` - `first`.
        """

    def last_end(self, first: int, num_steps: int) -> int:
        """The largest `end` with `counted_steps(first, end)` at most `num_steps`; `first` where there is none."""
        ends = range(first + 1, first + max(0, num_steps) + 1)
        return first + bisect.bisect_right(ends, num_steps, key=lambda end: self.counted_steps(first, end))

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement.

        Args:
            num_steps: of a run from step 0.
            batches_known: as in `participation`.
        """
        times = self.participation(num_steps, batches_known=batches_known).times
        return f"{self.name}, an example takes part in at most {times} steps"

    def neighbors_in_words(self, neighbors: str) -> str:
        """What two neighboring data sets are, as a clause of a privacy statement."""
        if neighbors == "replace_one":
            return "data sets that differ by one example replaced (replace_one)"
        return "data sets of which one lacks one example, the others keeping their numbers (add_or_remove)"

    def _generator(self, draw: int) -> "np.random.Generator":
        """A separate generator for every draw."""
        if self._key is None:
            raise ValueError(f"`seed` must be given for a {type(self).__name__} to draw batches. Received: seed=None")
        return keys.counter_stream(self._key, draw)


class EpochScheme(Scheme):
    """A scheme that draws whole epochs of ceil(N / B) steps, in each of which an example takes part at most once.

    The epochs are independent of each other. An epoch that was started is spent, and counts as a whole.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int | bytes | None = None):
        super().__init__(num_examples, batch_size, seed)
        self._current = (-1, None)

    @abc.abstractmethod
    def draw(self, generator: "np.random.Generator") -> tuple[np.ndarray, ...]:
        """The arrays that determine an epoch's batches, from the generator of the epoch."""

    def drawn(self, epoch: int) -> tuple[np.ndarray, ...]:
        """The same arrays of an epoch by its number, read-only."""
        # One assignment of a pair: a thread that reads while another writes sees either the old or the new epoch,
        # whole.
        cached, arrays = self._current
        if cached != epoch:
            arrays = self.draw(self._generator(epoch))
            for array in arrays:
                array.setflags(write=False)
            self._current = (epoch, arrays)
        return arrays

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and the place of the step in it."""
        return divmod(checked_step(step), self.steps_per_epoch)

    def epochs_started(self, num_steps: int) -> int:
        """By steps 0 to `num_steps` - 1."""
        return -(-checks.count("num_steps", num_steps, least=0) // self.steps_per_epoch)

    @property
    def stride(self) -> int:
        """An epoch that was started is spent."""
        return self.steps_per_epoch

    def counted_steps(self, first: int, end: int) -> int:
        """Whole epochs: an epoch counts as soon as a step of it is taken."""
        if first == end:
            return 0
        return (-(-end // self.stride) - first // self.stride) * self.stride


def checked_step(step: int) -> int:
    """The step as an int.

    Raises:
        ValueError: for a negative one.
    """
    if step < 0:
        raise ValueError(f"`step` must not be negative. Received: step={step}")
    return int(step)
