"""What is added to a clipped sum, and what it costs: the one interface of all mechanisms.

A private optimizer asks its mechanism for the bound, gives it the clipped sum and the statistic that the mechanism asks
for, and keeps the mechanism's state. The accounting asks the same mechanism for the cost, so that the noise that is
added is the noise that is accounted for.

    mechanism = recipe.make(l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256, key=key)
    state = mechanism.initial_state()                              # the scalars that change from step to step
    bound = mechanism.clip_bound(state)                            # examples are clipped to this
    statistic = mechanism.statistic(norms, present, state)         # None where the mechanism asks for none
    sums, statistic = mechanism.add_noise(sums, statistic, state, Draw(step=0))
    state = mechanism.next_state(statistic, state)
    mechanism.event_of_run(participation)                          # the dp_accounting.DpEvent of a run

To write your own mechanism, derive a class from `Mechanism`, and one from `Recipe` that makes the mechanism from an
optimizer's arguments. `noisy_sgd.DPSGD(..., noise=MyRecipe())` takes it.

Covered by the tests of the mechanisms and tests/visitors_test.py.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import dp_accounting
import tensorflow as tf


class Draw(NamedTuple):
    """What a draw depends on beside the key, which is step and generation, and the fraction of the draw to add here.

    Attributes:
        step: scalar integer.
        share: 1 / replicas. Defaults to 1.
        generation: scalar integer; a step that is released again has noise of another generation. Defaults to 0.
        first: scalar integer; no draw of an earlier step is used, if a mechanism correlates its noise over steps.
            Defaults to 0.
    """

    step: Any = 0
    share: float = 1.0
    generation: Any = 0
    first: Any = 0


State = dict[str, float | tf.Tensor]


class Mechanism(abc.ABC):
    """Noise on a sum of clipped gradients, with its cost.

    Every method but `event_of_run` is traced: it takes and returns tensors, and its noise is a function of the
    key and a `Draw` alone.
    """

    @property
    @abc.abstractmethod
    def event(self) -> dp_accounting.DpEvent:
        """What one step does to the examples of its batch; `NonPrivateDpEvent` without noise."""

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """The event of a run with this participation; by default the noise of its steps is independent.

        Args:
            participation: a `noisy_sgd.sampling.Participation`.
        """
        return participation.composed(self.event)

    # Whether the noise of every step is independent of that of the others. If not, each attempt at a run is priced by
    # itself.
    independent_steps: ClassVar[bool] = True

    @property
    def variance_shares(self) -> tuple[float, ...]:
        """The shares of the noise's variance that come from this step's draw, from the last one's, and so on."""
        return (1.0,)

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
        """The statistic that the mechanism learns from, summed over the examples. Defaults to None, no statistic.

        Args:
            norms: [B], of each example's gradient before clipping.
            present: [B] bool, False for padding; None for no padding.
            state: of this step.

        Returns:
            A float32 scalar, a sum over examples, which can be summed over microbatches and replicas.
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
        """Why there is no guarantee for any number of steps, as a clause; None where there is one."""
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
    """Makes a mechanism from an optimizer's arguments: `noise=` and `adaptive_clipping=` take a recipe.

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
        """The arguments that rebuild this recipe. Defaults to none."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Recipe":
        """The recipe of a `get_config`."""
        return cls(**config)
