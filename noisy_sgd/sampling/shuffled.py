"""Shuffled batches: fixed sizes, every example once per epoch, no amplification.

No batch crosses the end of an epoch, so an example is in at most one batch per epoch, whatever the order: a run costs
one step of the mechanism, composed once per epoch that was started. An epoch is ceil(N / B) steps.

    scheme = shuffled.Shuffled(num_examples=1797, batch_size=64, seed=7)
    scheme.participation(280)    # ten times: 280 steps start ten epochs of 29 steps
"""

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sampling import scheme


class Shuffled(scheme.Scheme):
    """Batches of a fixed size from a fresh permutation per epoch; the last batch of an epoch may be smaller.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B, examples of a batch.
        seed: integer, or a secret's bytes. Defaults to None, for accounting alone.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    name = "shuffled"
    purpose = "order"

    def __init__(self, num_examples: int, batch_size: int, seed: int | bytes | None = None):
        super().__init__(num_examples, batch_size, seed)
        self._current = (-1, None)

    def size(self, step: int) -> int:
        """Number of examples of a step's batch, without drawing it."""
        return min(self.batch_size, self.num_examples - self._position(step)[1])

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, int64 [size(step)]."""
        epoch, position = self._position(step)
        return self._permutation(epoch)[position : position + self.batch_size]

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """Once per epoch started; two participations may be in consecutive steps."""
        return scheme.Participation(times=-(-checks.count("num_steps", num_steps, least=0) // self.steps_per_epoch))

    @property
    def stride(self) -> int:
        """An epoch that was started is spent."""
        return self.steps_per_epoch

    def counted_steps(self, first: int, end: int) -> int:
        """Whole epochs: an epoch counts as soon as a step of it is taken."""
        if first == end:
            return 0
        return (-(-end // self.stride) - first // self.stride) * self.stride

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        return (
            "shuffled batches of fixed size, without amplification: an example takes part at most once in each of "
            f"{self.participation(num_steps).times} epochs started"
        )

    def neighbors_in_words(self, neighbors: str) -> str:
        """The example's position stays and contributes nothing; otherwise the later batches would shift."""
        if neighbors == "replace_one":
            return super().neighbors_in_words(neighbors)
        return (
            "data sets of which one lacks one example's contribution, its place in the order left empty (add_or_remove)"
        )

    def _position(self, step: int) -> tuple[int, int]:
        epoch, batch = divmod(scheme.checked_step(step), self.steps_per_epoch)
        return epoch, batch * self.batch_size

    def _permutation(self, epoch: int) -> np.ndarray:
        # One assignment of a pair: a thread that reads while another writes sees either the old or the new epoch,
        # whole.
        cached, permutation = self._current
        if cached != epoch:
            permutation = self._generator(epoch).permutation(self.num_examples)
            permutation.setflags(write=False)
            self._current = (epoch, permutation)
        return permutation
