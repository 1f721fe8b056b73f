"""How often one example may take part in the steps of an epoch of `fit`, by the kind of training data.

Shuffled batches get no amplification by sampling: the cost depends on how often an example takes part. In one pass over
the examples an example takes part once. But a dataset may hold several passes (`repeat`), pass over a part of the
examples again and again (`drop_remainder` before `repeat`), or have an unknown end. If an epoch is not known to be one
pass, every step counts.

    data = Data.of(dataset, steps_per_epoch=None)
    data.participations(steps=3, pass_length=4)    # 1 for a dataset of at most 4 batches
    data = data.after_an_epoch(steps=3)            # now the number of batches is known
"""

import dataclasses

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The facts that are known about the batches of an epoch.

    Attributes:
        one_pass: whether an epoch is at most one pass over the examples, for any number of batches; True for arrays.
        num_batches: the number of batches until a dataset ends by itself; None if it is not known.
        ends: whether an epoch lasts until the data end, if they end.
    """

    one_pass: bool = False
    num_batches: int | None = None
    ends: bool = False

    @classmethod
    def of(cls, x, steps_per_epoch: int | None) -> "Data":
        """The facts about the training data of `fit`.

        Args:
            x: arrays, a dataset, a `keras.utils.PyDataset`, a generator, or other data that Keras takes.
            steps_per_epoch: as passed to `fit`.
        """
        if is_arrays(x):
            return cls(one_pass=True)
        ends = steps_per_epoch is None
        if isinstance(x, tf.data.Dataset):
            count = int(x.cardinality())
            return cls(num_batches=count if count >= 0 else None, ends=ends)
        if isinstance(x, keras.utils.PyDataset):
            return cls(num_batches=x.num_batches, ends=ends)
        return cls(ends=ends)

    def counts_every_step(self, pass_length: int) -> bool:
        """Whether an example may take part in every step of an epoch, as known at the first step of the epoch.

        Args:
            pass_length: batches of one pass over the examples, ceil(N / B).
        """
        return not self.one_pass and (self.num_batches is None or self.num_batches > pass_length)

    def participations(self, steps: int, pass_length: int) -> int:
        """The largest number of steps of an epoch so far that one example may have taken part in.

        Args:
            steps: the number of steps of the epoch so far.
            pass_length: as in `counts_every_step`.
        """
        if self.counts_every_step(pass_length):
            return steps
        # A dataset of unknown size may be longer than in an earlier epoch.
        beyond = 0 if self.num_batches is None else max(0, steps - self.num_batches)
        return min(steps, 1) + beyond

    def after_an_epoch(self, steps: int) -> "Data":
        """The facts after an epoch that lasted until the end of the data."""
        learned = self.ends and self.num_batches is None and not self.one_pass
        return dataclasses.replace(self, num_batches=steps) if learned else self

    def why_every_step(self, pass_length: int) -> str:
        """The reason why every step counts, as a clause of a sentence."""
        if self.num_batches is None:
            return "the dataset does not state the number of its batches"
        return f"the dataset has {self.num_batches} batches, and a pass over the examples has {pass_length}"


def is_arrays(x) -> bool:
    """Whether the data are arrays, from which Keras itself draws the batches."""
    return all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
