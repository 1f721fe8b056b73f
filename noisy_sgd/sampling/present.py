"""The batches of a scheme on data from which examples are missing, the others keeping their numbers.

The neighbor of a data set under add_or_remove is such a data set: an example that is missing is drawn like any other,
and is then in no batch. So the number of examples, which is public, does not tell who is missing.

    Present(Poisson(num_examples=4, batch_size=2, seed=7), [True, True, False, True]).indices(0)    # never 2
"""

from collections.abc import Sequence

import numpy as np

from noisy_sgd import checks
from noisy_sgd.sampling import scheme as schemes


class Present(schemes.Scheme):
    """The scheme's batches without the examples that are missing.

    Args:
        scheme: the scheme of all numbers, which also says how an example takes part.
        present: bool [num_examples], False for a missing example.

    Raises:
        ValueError: unless `present` has one value per example.
    """

    def __init__(self, scheme: schemes.Scheme, present: Sequence[bool]):
        present = np.asarray(present, bool)
        constraint = f"must hold one value for each of the {scheme.num_examples} examples"
        checks.require(present.shape == (scheme.num_examples,), "present", constraint, present.shape)
        super().__init__(scheme.num_examples, scheme.batch_size)
        self.name, self.purpose, self.amplifies = scheme.name, scheme.purpose, scheme.amplifies
        self._scheme, self._present = scheme, present

    def size(self, step: int) -> int:
        """Number of examples of a step's batch."""
        return len(self.indices(step))

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch that are present, int64 [size(step)]."""
        drawn = self._scheme.indices(step)
        return drawn[self._present[drawn]]

    def participation(self, num_steps: int, *, batches_known: bool = False) -> schemes.Participation:
        """As in the scheme: a missing example takes part in less."""
        return self._scheme.participation(num_steps, batches_known=batches_known)

    def counted_steps(self, first: int, end: int) -> int:
        """As in the scheme."""
        return self._scheme.counted_steps(first, end)

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        return self._scheme.in_words(num_steps, batches_known=batches_known)
