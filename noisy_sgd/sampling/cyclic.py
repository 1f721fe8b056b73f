"""Cyclic batches: one random partition of the examples into batches, which come in the same order in every epoch.

An example takes part once per epoch, and its participations are exactly b = ceil(N / B) steps apart. For independent
noise that is worth nothing more than fresh shuffling. For noise that is correlated over steps it is what makes the cost
known (`noisy_sgd.mechanisms.CorrelatedNoise`). There is no amplification: the partition need not be secret.

    scheme = cyclic.Cyclic(num_examples=1797, batch_size=64, seed=7)
    scheme.participation(280)    # ten times, 29 steps apart
"""

import numpy as np

from noisy_sgd.sampling import scheme, shuffled


class Cyclic(shuffled.FixedBatches):
    """Batches of a fixed size from one permutation for all epochs; the last batch of an epoch may be smaller.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B, examples of a batch.
        seed: integer, or a secret's bytes. Defaults to None, for accounting alone.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    name = "cyclic"

    def permutation_of(self, epoch: int) -> np.ndarray:
        """The order of the examples, int64 [N]; the same in every epoch."""
        return self.drawn(0)[0]

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """Once per epoch started, always in the same place of the epoch; the last epoch counts as a whole."""
        times, separation = self.epochs_started(num_steps), self.steps_per_epoch
        return scheme.Participation(times=times, separation=separation, length=times * separation)

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        # Another attempt at a run has another partition.
        return (
            "cyclic batches of fixed size, without amplification: an example takes part at most "
            f"{self.epochs_started(num_steps)} times, exactly {self.steps_per_epoch} steps apart within one attempt"
        )
