"""Mechanisms around another mechanism: the same noise, with another cost or on other sums.

inner = gaussian.IndependentNoise().make(1.0, 1.1, 256, key)
wrapped.Unaccounted(inner, "its state depends on the data without noise", "with an error feedback").not_private

Covered by tests/optimizers/error_feedback_test.py.
"""

import dp_accounting

from noisy_sgd.mechanisms import mechanism


class Wrapped(mechanism.Mechanism):
    """Does all that another mechanism does; a subclass changes a part.

    Args:
        inner: the other mechanism.
    """

    def __init__(self, inner: mechanism.Mechanism):
        self._inner = inner

    @property
    def event(self) -> dp_accounting.DpEvent:
        """That of the inner mechanism, like all that follow."""
        return self._inner.event

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """The event of a run."""
        return self._inner.event_of_run(participation)

    @property
    def independent_steps(self) -> bool:
        """Whether the noise of every step is independent of that of the others."""
        return self._inner.independent_steps

    @property
    def variance_shares(self) -> tuple[float, ...]:
        """The shares of the noise's variance by draw."""
        return self._inner.variance_shares

    def initial_state(self) -> mechanism.State:
        """The scalars of the first step."""
        return self._inner.initial_state()

    def clip_bound(self, state: mechanism.State):
        """C of the step to come."""
        return self._inner.clip_bound(state)

    def stddev(self, state: mechanism.State):
        """Standard deviation of one step's noise on the sum."""
        return self._inner.stddev(state)

    def statistic(self, norms, present, state: mechanism.State):
        """The statistic that the inner mechanism learns from."""
        return self._inner.statistic(norms, present, state)

    def add_noise(self, sums, statistic, state: mechanism.State, draw: mechanism.Draw):
        """This replica's part of the noised sums and of the noised statistic."""
        return self._inner.add_noise(sums, statistic, state, draw)

    def next_state(self, statistic, state: mechanism.State) -> mechanism.State:
        """The scalars of the next step."""
        return self._inner.next_state(statistic, state)

    @property
    def not_private(self) -> str | None:
        """Why there is no guarantee, or None."""
        return self._inner.not_private

    def facts(self) -> dict[str, float]:
        """The numbers of a privacy statement."""
        return self._inner.facts()

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients."""
        return self._inner.in_words(clipped)


class Unaccounted(Wrapped):
    """A mechanism of a training whose epsilon is not known, because its noise does not cover all that it releases.

    Args:
        inner: what draws the noise.
        reason: why no epsilon is known, as a clause.
        in_words: what happens to the gradients beside the inner mechanism, as a clause.
    """

    def __init__(self, inner: mechanism.Mechanism, reason: str, in_words: str):
        super().__init__(inner)
        self._reason, self._in_words = reason, in_words

    @property
    def event(self) -> dp_accounting.DpEvent:
        """Not private."""
        return dp_accounting.NonPrivateDpEvent()

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """Not private, for any number of steps."""
        return participation.composed(self.event)

    @property
    def not_private(self) -> str:
        """Why no epsilon is known."""
        return self._inner.not_private or f"{self._reason} (epsilon = infinity)"

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients."""
        return f"{self._inner.in_words(clipped)}, {self._in_words}"
