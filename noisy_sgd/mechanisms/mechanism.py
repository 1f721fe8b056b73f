"""What is added to a clipped sum, and what that costs: the one interface of all mechanisms.

A private optimizer asks its mechanism for the bound, hands it the clipped sum with the statistic that the mechanism
asked for, and keeps its state; the accounting asks it for its price. So what is accounted for is what is added.

    mechanism = recipe.make(l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256, key=key)
    state = mechanism.initial_state()                              # what changes from step to step
    bound = mechanism.clip_bound(state)                            # examples are clipped to this
    statistic = mechanism.statistic(norms, present, state)         # None where the mechanism asks for none
    sums, statistic = mechanism.add_noise(sums, statistic, state, Draw(step=0))
    state = mechanism.next_state(statistic, state)
    mechanism.event_of_run(participation)                          # the dp_accounting.DpEvent of a run

A mechanism of your own derives from `Mechanism`, and from a recipe that makes it of an optimizer's arguments, so that
`noisy_sgd.DPSGD(..., noise=MyRecipe())` takes it.

Covered by the tests of the mechanisms and tests/visitors_test.py.
"""

import abc
from typing import Any, NamedTuple

import dp_accounting
import tensorflow as tf


class Draw(NamedTuple):
    """What a draw depends on beside the key: the step and its generation; and the fraction of it to add here.

    Attributes:
        step: scalar integer.
        share: 1 / replicas. Defaults to 1.
        generation: scalar integer; a step that is released again has noise of another generation. Defaults to 0.
    """

    step: Any = 0
    share: float = 1.0
    generation: Any = 0


State = dict[str, float | tf.Tensor]


class Mechanism(abc.ABC):
    """Noise on a sum of clipped gradients, with its price.

    Every method but `event_of_run` is traced: it takes and returns tensors, and draws only what is a function of the
    key and a `Draw`.
    """

    @property
    @abc.abstractmethod
    def event(self) -> dp_accounting.DpEvent:
        """What one step does to the examples of its batch; `NonPrivateDpEvent` without noise."""

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """What a run does in which examples take part so; by default its steps' noise is independent.

        Args:
            participation: a `noisy_sgd.sampling.Participation`.
        """
        return participation.composed(self.event)

    def initial_state(self) -> State:
        """Scalars that change from step to step, by name; they become variables of the optimizer. Defaults to none."""
        return {}

    @abc.abstractmethod
    def clip_bound(self, state: State) -> float | tf.Tensor:
        """C, the bound on each example's gradient in the step to come; the sum's sensitivity."""

    @abc.abstractmethod
    def stddev(self, state: State) -> float | tf.Tensor:
        """Standard deviation of one step's noise on each coordinate of the sum."""

    def statistic(self, norms: tf.Tensor, present: tf.Tensor | None, state: State) -> tf.Tensor | None:
        """The sum over the examples of what the mechanism learns from beside the gradients. Defaults to None, nothing.

        Args:
            norms: [B], of each example's gradient before clipping.
            present: [B] bool, False for padding; None for no padding.
            state: of this step.

        Returns:
            A float32 scalar; a sum over examples, so that it may be summed over microbatches and replicas.
        """
        return None

    @abc.abstractmethod
    def add_noise(
        self, sums: list[tf.Tensor], statistic: tf.Tensor | None, state: State, draw: Draw
    ) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """This replica's part of the noised sums and of the noised statistic.

        Args:
            sums: this replica's part of the clipped sum, one tensor per weight.
            statistic: this replica's part, or None.
            state: of this step.
            draw: the step, its generation, and the share of the noise to add here.
        """

    def next_state(self, statistic: tf.Tensor | None, state: State) -> State:
        """The state of the next step. Defaults to the same.

        Args:
            statistic: noised, and summed over all replicas.
            state: of this step.
        """
        return state

    @property
    def not_private(self) -> str | None:
        """Why nothing is guaranteed, however few the steps, as a clause; None where something is."""
        no_noise = isinstance(self.event, dp_accounting.NonPrivateDpEvent)
        return "no noise is added (epsilon = infinity)" if no_noise else None

    @abc.abstractmethod
    def facts(self) -> dict[str, float]:
        """The numbers of a privacy statement: `l2_norm_clip` (of the first step), `noise_multiplier`, and others."""

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients, as a clause of a privacy statement.

        Args:
            clipped: how a gradient is brought within the bound, such as "clipped to norm".
        """
        facts = self.facts()
        return (
            f"{clipped} {facts['l2_norm_clip']:g}, summed, Gaussian noise of {facts['noise_multiplier']:g} times that "
            "norm (the noise multiplier)"
        )


class Recipe(abc.ABC):
    """How a mechanism is made of an optimizer's arguments: what `noise=` and `adaptive_clipping=` take.

    It is saved with the optimizer: give it `get_config`, and register it with
    `keras.saving.register_keras_serializable`.
    """

    @abc.abstractmethod
    def make(self, l2_norm_clip: float, noise_multiplier: float, batch_size: int, key) -> Mechanism:
        """The mechanism of a run.

        Args:
            l2_norm_clip: C, positive; infinity only where the noise multiplier is 0.
            noise_multiplier: sigma, the noise's nominal standard deviation in units of C.
            batch_size: B, the nominal size of a batch.
            key: [2] int64 variable, the noise key.
        """

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild it. Defaults to none."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Recipe":
        """It, from `get_config`."""
        return cls(**config)
