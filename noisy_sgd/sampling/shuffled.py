"""Shuffled batches: fixed sizes, every example once per epoch, no amplification.

No batch crosses the end of an epoch, so an example is in at most one batch per epoch, whatever the order: a run costs
one step of the mechanism, composed once per epoch that was started. An epoch is ceil(N / B) steps.

    scheme = shuffled.Shuffled(num_examples=1797, batch_size=64, seed=7)
    scheme.participation(280)    # ten times: 280 steps start ten epochs of 29 steps
"""

import abc

import numpy as np

from noisy_sgd.sampling import scheme


class FixedBatches(scheme.EpochScheme):
    """Batches of a fixed size from a permutation of the examples; the last batch of an epoch may be smaller."""

    purpose = "order"

    @abc.abstractmethod
    def permutation_of(self, epoch: int) -> np.ndarray:
        """The order of the examples in an epoch, int64 [N]."""

    def size(self, step: int) -> int:
        """Number of examples of a step's batch, without drawing it."""
        return min(self.batch_size, self.num_examples - self.place(step)[1] * self.batch_size)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, int64 [size(step)]."""
        epoch, place = self.place(step)
        return self.permutation_of(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def draw(self, generator: "np.random.Generator") -> tuple[np.ndarray, ...]:
        """A permutation."""
        return (generator.permutation(self.num_examples),)

    def neighbors_in_words(self, neighbors: str) -> str:
        """The example's position stays and contributes nothing; otherwise the later batches would shift."""
        if neighbors == "replace_one":
            return super().neighbors_in_words(neighbors)
        return (
            "data sets of which one lacks one example's contribution, its place in the order left empty (add_or_remove)"
        )


class Shuffled(FixedBatches):
    """Batches of a fixed size from a fresh permutation per epoch; the last batch of an epoch may be smaller.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B, examples of a batch.
        seed: integer, or a secret's bytes. Defaults to None, for accounting alone.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    name = "shuffled"

    def permutation_of(self, epoch: int) -> np.ndarray:
        """The order of the examples in an epoch, int64 [N]."""
        return self.drawn(epoch)[0]

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """Once per epoch started; two participations may be in consecutive steps."""
        times = self.epochs_started(num_steps)
        return scheme.Participation(times=times, length=self.steps_per_epoch if times == 1 else None)

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        return (
            "shuffled batches of fixed size, without amplification: an example takes part at most once in each of "
            f"{self.epochs_started(num_steps)} epochs started"
        )
