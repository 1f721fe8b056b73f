"""What a run does and what it costs: a mechanism, a sampling scheme, a number of steps, and how to account for them.

The scheme states how one example takes part in a run. The mechanism prices a run with this participation. The plan
joins the two and computes epsilon. Calibration, ledger, statement, `noisy_sgd.PrivacyBudget` and recorded runs all take
a plan, so that the accounting asks the same mechanism and the same sampling scheme that the run uses.

    optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256)
    scheme = noisy_sgd.sampling.named("poisson")(num_examples=60_000, batch_size=256)
    plan = noisy_sgd.privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=1_000, delta=1e-5)
    plan.epsilon                          # of the run
    plan.with_steps(2_000).epsilon        # of a longer one

Without an optimizer, `epsilon` answers for Gaussian noise:

    epsilon(2.5, 16384, 1281167, 72000, delta=8e-7, sampling="poisson", accountant="rdp")    # 7.954
    epsilon(1.0, 64, 1797, 280, delta=1e-5, sampling="shuffled")         # ten epochs started: the Gaussian ten times

"""

import dataclasses
from collections.abc import Sequence

import dp_accounting

from noisy_sgd import checks, sampling
from noisy_sgd.privacy import accounting, truncation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, and how it is accounted for.

    Args:
        event: what one step does: a mechanism (`optimizer.mechanism`), or the `dp_accounting.DpEvent` of one step whose
            noise is independent of the other steps'.
        sampling: a `noisy_sgd.sampling.Scheme`, with its batch size and its number of examples.
        num_steps: number of noisy steps; at least 0.
        delta: probability in (0, 1), well below one over the number of examples.
        neighbors: "add_or_remove" or "replace_one" of one example. Defaults to "add_or_remove".
        accountant: "pld" (privacy loss distributions; tighter, up to 500) or "rdp" (Renyi, with the conversion of
            Balle et al. 2020). Defaults to "pld".
        batches_known: whether the adversary knows who is in which batch, as with a recorded seed; there is then no
            amplification. Defaults to False.
        earlier: the number of steps of each earlier attempt at the run, if its noise is correlated over steps. The
            noise of every attempt is independent of the others', and what each releases is composed. Defaults to none.

    Raises:
        ValueError: for an argument out of its range.
    """

    event: object
    sampling: sampling.Scheme
    num_steps: int
    delta: float
    neighbors: str = "add_or_remove"
    accountant: str = "pld"
    batches_known: bool = False
    earlier: tuple[int, ...] = ()

    def __post_init__(self):
        if not isinstance(self.event, dp_accounting.DpEvent) and not hasattr(self.event, "event_of_run"):
            raise ValueError(
                "`event` must be a mechanism, such as optimizer.mechanism, or a dp_accounting.DpEvent. "
                f"Received: event={self.event!r}"
            )
        if not isinstance(self.sampling, sampling.Scheme):
            raise ValueError(
                "`sampling` must be a noisy_sgd.sampling.Scheme, such as noisy_sgd.sampling.Poisson(num_examples, "
                f"batch_size). Received: sampling={self.sampling!r}"
            )
        checks.count("num_steps", self.num_steps, least=0)
        checks.real("delta", self.delta, above=0, below=1)
        checks.choice("neighbors", self.neighbors, accounting.NEIGHBORS)
        checks.choice("accountant", self.accountant, accounting.ACCOUNTANTS)
        constraint = "must be empty where the noise of every step is independent: all steps belong to `num_steps`"
        checks.require(not self.earlier or not self.independent_steps, "earlier", constraint, self.earlier)

    @property
    def participation(self) -> sampling.Participation:
        """How one example takes part in the run, as the adversary sees it."""
        return self.sampling.participation(self.num_steps, batches_known=self.batches_known)

    @property
    def event_of_run(self) -> dp_accounting.DpEvent:
        """The run as a dp_accounting event, with noise in units of one clip norm."""
        if isinstance(self.event, dp_accounting.DpEvent):
            return self.participation.composed(self.event)
        if not self.earlier:
            return self.event.event_of_run(self.participation)
        attempts = [self.with_attempts([num_steps]) for num_steps in (*self.earlier, self.num_steps) if num_steps]
        return dp_accounting.ComposedDpEvent([attempt.event_of_run for attempt in attempts])

    @property
    def epsilon(self) -> float:
        """An upper bound on epsilon at `delta`, at least 0; infinity where there is no guarantee."""
        event = self.event_of_run
        return truncation.epsilon_within(
            lambda left: accounting.epsilon_of_event(event, left, self.accountant, self.neighbors),
            self.delta,
            self.participation.overflow,
        )

    @property
    def amplified(self) -> bool:
        """Whether epsilon is lower because the adversary does not know who is in which batch."""
        return self.sampling.amplifies and not self.batches_known

    @property
    def independent_steps(self) -> bool:
        """Whether the noise of every step is independent of that of the others."""
        return getattr(self.event, "independent_steps", True)

    @property
    def text(self) -> str:
        """The plan in one line."""
        num_steps = sum((*self.earlier, self.num_steps))
        drawn = self.sampling.in_words(num_steps, batches_known=self.batches_known)
        return (
            f"epsilon = {self.epsilon:.4g} at delta = {self.delta:g} ({self.neighbors}, {self.accountant}) after "
            f"{num_steps} steps: {drawn}"
        )

    def with_steps(self, num_steps: int) -> "Plan":
        """The same run of another length."""
        return dataclasses.replace(self, num_steps=num_steps)

    def with_attempts(self, steps: Sequence[int]) -> "Plan":
        """All attempts at the run together, each with noise and batches from keys of its own.

        Args:
            steps: of each attempt, at least one, as a sampling scheme counts them.
        """
        if self.independent_steps:
            return self.with_steps(sum(steps))
        *earlier, last = steps
        return dataclasses.replace(self, num_steps=last, earlier=tuple(earlier))

    def by(self, accountant: str) -> "Plan":
        """The same run by another accountant."""
        return dataclasses.replace(self, accountant=accountant)


def gaussian(
    noise_multiplier: float,
    batch_size: int,
    num_examples: int,
    num_steps: int,
    delta: float,
    *,
    sampling: str,
    accountant: str = "pld",
    neighbors: str = "add_or_remove",
    capacity: int | None = None,
    noise=None,
) -> Plan:
    """The plan of DP-SGD with a fixed clip; the arguments are those of `epsilon`."""
    noise_multiplier = checks.real("noise_multiplier", noise_multiplier, least=0)
    return Plan(
        event=dp_accounting.GaussianDpEvent(noise_multiplier) if noise is None else noise.priced(noise_multiplier),
        sampling=_scheme(sampling, num_examples, batch_size, capacity),
        num_steps=num_steps,
        delta=delta,
        neighbors=neighbors,
        accountant=accountant,
    )


def epsilon(
    noise_multiplier: float,
    batch_size: int,
    num_examples: int,
    num_steps: int,
    delta: float,
    *,
    sampling: str,
    accountant: str = "pld",
    neighbors: str = "add_or_remove",
    capacity: int | None = None,
    noise=None,
) -> float:
    """An upper bound on epsilon after `num_steps` steps of DP-SGD, at the given delta.

    Args:
        noise_multiplier: standard deviation of the noise on the sum of clipped gradients, in clip norms; 0 gives
            infinity.
        batch_size: nominal batch size B, the divisor; the expected size under Poisson sampling.
        num_examples: number of training examples N, itself public.
        num_steps: number of noisy steps; 0 gives 0.
        delta: probability in (0, 1), well below 1 / num_examples.
        sampling: how the batches are drawn, "poisson", "random_allocation", or "shuffled" and "cyclic", which give no
            amplification. It has no default: Keras' `fit` shuffles unless told otherwise, and the amplified number
            would be far too small for it.
        accountant: "pld" (privacy loss distributions; tighter, up to 500) or "rdp" (Renyi, with the conversion of
            Balle et al. 2020). Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one" of one example. Defaults to "add_or_remove".
        capacity: M, the number of examples at which Poisson batches are cut off; a part of delta pays for that (see
            `noisy_sgd.sampling.CappedPoisson`). Defaults to None, no limit.
        noise: a `noisy_sgd.CorrelatedNoise`, for sampling="cyclic". Defaults to None, independent noise.

    Returns:
        Epsilon, at least 0; infinity where there is no guarantee.

    Raises:
        ValueError: for an argument out of its range, or a batch larger than the data.
    """
    return gaussian(
        noise_multiplier,
        batch_size,
        num_examples,
        num_steps,
        delta,
        sampling=sampling,
        accountant=accountant,
        neighbors=neighbors,
        capacity=capacity,
        noise=noise,
    ).epsilon


def _scheme(name, num_examples, batch_size, capacity):
    kind = sampling.named(name)
    if capacity is None:
        return kind(num_examples, batch_size)
    if kind is not sampling.Poisson:
        raise ValueError(f"`capacity` must be None unless `sampling` is 'poisson'. Received: capacity={capacity!r}")
    return sampling.CappedPoisson(num_examples, batch_size, capacity=capacity)
