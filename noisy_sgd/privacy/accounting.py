"""What a run of DP-SGD costs: from what the mechanism did at each step to (epsilon, delta).

A step of DP-SGD (eq. 2 of arXiv 2402.08344) releases the sum of clipped gradients plus Gaussian noise of
`noise_multiplier` times the clip norm. How often an example takes part decides how the steps add up:

- `sampling="poisson"`: every example is in every batch independently with probability q = batch_size / num_examples.
  The steps are Poisson-subsampled Gaussians, and the amplification holds only against those who do not know who was in
  which batch.
- `sampling="shuffled"`: fixed-size batches of a shuffled order, none of which crosses an epoch. No amplification is
  claimed: an example is in at most one batch an epoch, so the cost is one Gaussian composed once per epoch started,
  whatever the order.

Neighbours: under "add_or_remove" one example's clipped gradient is there or not, and the sum moves by at most the clip
norm C. The other examples keep their numbers, on which their places in a shuffled order and their augmentation depend:
shuffled, the example's own place stays and contributes nothing, for otherwise the later batches would shift. Under
"replace_one" one gradient becomes another and the sum moves by at most 2C: without sampling the noise multiplier halves
exactly. No accountant takes Poisson sampling with "replace_one"; there a replacement is a removal and an addition, and
(2 epsilon, (1 + e^epsilon) delta) is claimed of an add-or-remove (epsilon, delta).

    epsilon(2.5, 16384, 1281167, 72000, delta=8e-7, sampling="poisson", accountant="rdp")    # 7.954
    epsilon(1.0, 64, 1797, 280, delta=1e-5, sampling="shuffled")         # ten epochs started: the Gaussian ten times
"""

import functools
import math
from collections.abc import Callable, Iterator

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp

from noisy_sgd.privacy import arguments, truncation

ACCOUNTANTS = ("pld", "rdp")
SAMPLINGS = ("poisson", "shuffled")
NEIGHBOURS = ("add_or_remove", "replace_one")

# PLD rounds privacy losses up to a grid. In proportion to epsilon the grid keeps its length, so time and memory stay
# bounded where epsilon is large, and the result moves by less than 1e-5 of itself; 1e-4 is dp_accounting's default.
_FINEST_INTERVAL = 1e-4
_RELATIVE_INTERVAL = 1e-5
# Where e^epsilon nears the largest double, PLD turns erratic and slow: RDP's bound stands in. Next to no noise is none.
_LARGEST_PLD_EPSILON = 500.0
_LEAST_NOISE_MULTIPLIER = 1e-6
# RDP of a sampled step is the log of nearly 1: rounding takes it below its value, even below 0, by less than this.
_RDP_ROUNDING = 1e-13


def epsilon(
    noise_multiplier: float,
    batch_size: int,
    num_examples: int,
    num_steps: int,
    delta: float,
    *,
    sampling: str,
    accountant: str = "pld",
    neighbours: str = "add_or_remove",
    capacity: int | None = None,
) -> float:
    """An upper bound on epsilon after `num_steps` steps of DP-SGD, at the given delta.

    Args:
        noise_multiplier: standard deviation of the noise on the sum of clipped gradients, in clip norms; 0 gives
            infinity.
        batch_size: nominal batch size B, the divisor; the expected size under Poisson sampling.
        num_examples: number of training examples N, itself public.
        num_steps: number of noisy steps; 0 gives 0.
        delta: probability in (0, 1), well below 1 / num_examples.
        sampling: how the batches are drawn, "poisson" or "shuffled", which gives no amplification. It has no default:
            Keras' `fit` shuffles, and the amplified number would be far too small for it.
        accountant: "pld" (privacy loss distributions; tighter, up to 500) or "rdp" (Renyi, with the conversion of
            Balle et al. 2020). Defaults to "pld".
        neighbours: "add_or_remove" or "replace_one" of one example. Defaults to "add_or_remove".
        capacity: where Poisson batches are cut off at so many examples, M; a part of delta pays for that (see
            `truncation`). Defaults to None, batches of any size.

    Returns:
        Epsilon, at least 0; infinity where there is no guarantee.

    Raises:
        ValueError: for an argument out of its range, or a batch larger than the data.
    """
    done = event(noise_multiplier, batch_size, num_examples, num_steps, sampling=sampling)
    delta = arguments.real("delta", delta, above=0, below=1)
    if capacity is None:
        return _remembered(done, delta, accountant, neighbours)
    if sampling != "poisson":
        raise ValueError(f"`capacity` must be None unless `sampling` is 'poisson'. Received: capacity={capacity!r}")
    return truncation.epsilon_within(
        lambda left: _remembered(done, left, accountant, neighbours),
        delta,
        num_steps * truncation.overflow_probability(batch_size, num_examples, capacity),
    )


def event(
    noise_multiplier: float, batch_size: int, num_examples: int, num_steps: int, *, sampling: str
) -> dp_accounting.DpEvent:
    """The run as dp_accounting describes it, noise in units of one clip norm; the arguments are those of `epsilon`."""
    noise_multiplier = arguments.real("noise_multiplier", noise_multiplier, least=0)
    mechanism_event = dp_accounting.GaussianDpEvent(noise_multiplier)
    return event_of_steps(mechanism_event, batch_size, num_examples, num_steps, sampling=sampling)


def event_of_steps(
    mechanism_event: dp_accounting.DpEvent,
    batch_size: int,
    num_examples: int,
    num_steps: int,
    *,
    sampling: str,
) -> dp_accounting.DpEvent:
    """The run whose every step did `mechanism_event` (the event that the mechanism itself emits) on a sampled batch.

    Args:
        mechanism_event: a GaussianDpEvent; a ComposedDpEvent of several on the same batch, such as adaptive clipping
            has on its sum and its count; or a NonPrivateDpEvent for noise without clipping.
        batch_size: as in `epsilon`.
        num_examples: as in `epsilon`.
        num_steps: as in `epsilon`.
        sampling: as in `epsilon`.

    Returns:
        A DpEvent for `epsilon_of_event`.

    Raises:
        ValueError: for another kind of event, or as `epsilon`.
    """
    batch_size, num_examples = arguments.batch(batch_size, num_examples)
    num_steps = arguments.count("num_steps", num_steps, least=0)
    arguments.choice("sampling", sampling, SAMPLINGS)
    mechanism_event = _as_one_gaussian(mechanism_event)
    if not isinstance(mechanism_event, dp_accounting.GaussianDpEvent | dp_accounting.NonPrivateDpEvent):
        raise ValueError(
            "`mechanism_event` must be a GaussianDpEvent, a ComposedDpEvent of such, or a NonPrivateDpEvent. "
            f"Received: mechanism_event={mechanism_event!r}"
        )
    if num_steps == 0:
        return dp_accounting.NoOpDpEvent()
    if isinstance(mechanism_event, dp_accounting.NonPrivateDpEvent):
        return mechanism_event
    if sampling == "shuffled":
        return dp_accounting.SelfComposedDpEvent(mechanism_event, epochs_started(batch_size, num_examples, num_steps))
    sampled = dp_accounting.PoissonSampledDpEvent(batch_size / num_examples, mechanism_event)
    return dp_accounting.SelfComposedDpEvent(sampled, num_steps)


def joint_noise_multiplier(*noise_multipliers: float) -> float:
    """The noise multiplier of the one Gaussian that costs what several on the same batch cost together.

    Scaled to unit noise, one example moves them by a vector of norm sqrt(sum_j z_j^-2), which is 1 / z:

        z = (sum_j z_j^-2)^(-1/2)

    Args:
        *noise_multipliers: z_j, each standard deviation in units of its own sensitivity; 0 gives 0.

    Returns:
        z.
    """
    multipliers = [arguments.real("noise_multipliers", each, least=0) for each in noise_multipliers]
    return 0.0 if 0 in multipliers else 1 / math.hypot(*(1 / each for each in multipliers))


def _as_one_gaussian(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """Gaussians composed on one batch as the one that costs the same; other events as they are."""
    parts = event.events if isinstance(event, dp_accounting.ComposedDpEvent) else ()
    if parts and all(isinstance(part, dp_accounting.GaussianDpEvent) for part in parts):
        return dp_accounting.GaussianDpEvent(joint_noise_multiplier(*(part.noise_multiplier for part in parts)))
    return event


def steps_per_epoch(batch_size: int, num_examples: int) -> int:
    """ceil(N / B): the last batch of a shuffled epoch is smaller, so that no batch crosses into the next."""
    batch_size, num_examples = arguments.batch(batch_size, num_examples)
    return -(-num_examples // batch_size)


def epochs_started(batch_size: int, num_examples: int, num_steps: int) -> int:
    """How often an example can have been in a shuffled batch after `num_steps` steps: ceil(num_steps / ceil(N / B))."""
    return -(-arguments.count("num_steps", num_steps, least=0) // steps_per_epoch(batch_size, num_examples))


def check_mechanism(mechanism_event: dp_accounting.DpEvent, noise_multiplier: float) -> None:
    """Refuses a mechanism that does something else than what is accounted for.

    Args:
        mechanism_event: the DpEvent that the mechanism emits for one step.
        noise_multiplier: the one that the accounting and the privacy statement use.

    Raises:
        ValueError: if the event, several Gaussians taken as one, is not GaussianDpEvent(noise_multiplier), up to the
            rounding of a product and a quotient.
    """
    found = _as_one_gaussian(mechanism_event)
    gaussian = isinstance(found, dp_accounting.GaussianDpEvent)
    if not gaussian or not math.isclose(found.noise_multiplier, noise_multiplier, rel_tol=1e-12):
        raise ValueError(
            "`mechanism_event` must be the Gaussian that is accounted for, "
            f"GaussianDpEvent(noise_multiplier={noise_multiplier!r}). Received: mechanism_event={mechanism_event!r}"
        )


def epsilon_of_event(
    event: dp_accounting.DpEvent, delta: float, accountant: str = "pld", neighbours: str = "add_or_remove"
) -> float:
    """Epsilon of whatever was done: the one place where events become a number.

    Args:
        event: Gaussians in units of one clip norm, Poisson-sampled or not, composed as they come.
        delta: as in `epsilon`.
        accountant: as in `epsilon`.
        neighbours: as in `epsilon`.

    Returns:
        Epsilon, at least 0; infinity where there is no guarantee.

    Raises:
        ValueError: for an argument out of its range, or an event that is not made of Gaussians.
    """
    delta = arguments.real("delta", delta, above=0, below=1)
    arguments.choice("accountant", accountant, ACCOUNTANTS)
    arguments.choice("neighbours", neighbours, NEIGHBOURS)
    gaussians = list(_gaussians(event))
    if not gaussians:
        return 0.0
    if min(noise for noise, _ in gaussians) < _LEAST_NOISE_MULTIPLIER:
        return math.inf
    convert = _epsilon_of_one
    if neighbours == "replace_one":
        if any(sampled for _, sampled in gaussians):
            convert = _epsilon_of_two
        else:
            event = _with_doubled_sensitivity(event)
    # dp_accounting's ratios of tail masses overflow to the infinities that they stand for.
    with np.errstate(over="ignore", divide="ignore"):
        by_rdp = convert(_by_rdp(event), delta)
        if accountant == "rdp" or by_rdp > _LARGEST_PLD_EPSILON:
            return by_rdp
        # Both are upper bounds. RDP's is the smaller only at losses far below PLD's grid and deltas near its tail.
        return min(by_rdp, convert(_by_pld(event, by_rdp), delta))


# A sweep asks for the same run once a seed, and PLD takes seconds where the noise is small.
_remembered = functools.lru_cache(maxsize=256)(epsilon_of_event)


def _gaussians(event: dp_accounting.DpEvent) -> Iterator[tuple[float, bool]]:
    """The noise multiplier of every Gaussian within an event, and whether it acts on a sample; unclipped is 0."""
    match event:
        case dp_accounting.NoOpDpEvent():
            return
        case dp_accounting.NonPrivateDpEvent():
            yield 0.0, False
        case dp_accounting.GaussianDpEvent():
            yield event.noise_multiplier, False
        case dp_accounting.PoissonSampledDpEvent():
            yield from ((noise, True) for noise, _ in _gaussians(event.event))
        case dp_accounting.SelfComposedDpEvent():
            yield from _gaussians(event.event)
        case dp_accounting.ComposedDpEvent():
            for part in event.events:
                yield from _gaussians(part)
        case _:
            raise ValueError(f"`event` must be made of Gaussians. Received: event={event!r}")


def _with_doubled_sensitivity(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """The same unsampled noise against twice the change: every noise multiplier halved."""
    match event:
        case dp_accounting.GaussianDpEvent():
            return dp_accounting.GaussianDpEvent(event.noise_multiplier / 2)
        case dp_accounting.SelfComposedDpEvent():
            return dp_accounting.SelfComposedDpEvent(_with_doubled_sensitivity(event.event), event.count)
        case dp_accounting.ComposedDpEvent():
            return dp_accounting.ComposedDpEvent([_with_doubled_sensitivity(part) for part in event.events])
    return event


def _num_sampled(event: dp_accounting.DpEvent) -> int:
    """How many Poisson-sampled steps an event consists of."""
    match event:
        case dp_accounting.PoissonSampledDpEvent():
            return 1
        case dp_accounting.SelfComposedDpEvent():
            return event.count * _num_sampled(event.event)
        case dp_accounting.ComposedDpEvent():
            return sum(map(_num_sampled, event.events))
    return 0


def _by_rdp(event: dp_accounting.DpEvent) -> Callable[[float], float]:
    """Epsilon as a function of delta, by Renyi differential privacy, rounded up."""
    composed = rdp.RdpAccountant().compose(event)
    divergences = np.maximum(composed.rdp, 0) + _RDP_ROUNDING * _num_sampled(event)
    return lambda delta: float(rdp.compute_epsilon(composed.orders, divergences, delta)[0])


def _by_pld(event: dp_accounting.DpEvent, scale: float) -> Callable[[float], float]:
    """Epsilon as a function of delta, by the privacy loss distribution on a grid fit for epsilons of that scale."""
    composed = _composed_pld(_hashable(event), max(_FINEST_INTERVAL, _RELATIVE_INTERVAL * scale))
    return lambda delta: float(composed.get_epsilon(delta))


# A capacity asks for the same run at several deltas in a row.
@functools.lru_cache(maxsize=4)
def _composed_pld(event: dp_accounting.DpEvent, interval: float) -> pld.PLDAccountant:
    """The privacy loss distribution of a run on a grid."""
    return pld.PLDAccountant(value_discretization_interval=interval).compose(event)


def _hashable(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """The same event with tuples of parts, whatever sequences somebody made it of."""
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return dp_accounting.ComposedDpEvent(tuple(map(_hashable, event.events)))
    return event


def _epsilon_of_one(epsilon_at: Callable[[float], float], delta: float) -> float:
    """Epsilon under add-or-remove, which is what the accountants give."""
    return epsilon_at(delta)


def _epsilon_of_two(epsilon_at: Callable[[float], float], delta: float) -> float:
    """2e for a small e with (e, delta / (1 + exp(e))) under add-or-remove: then (2e, delta) holds under replace-one."""

    def single(candidate: float) -> float:
        return epsilon_at(math.exp(math.log(delta) - np.logaddexp(0.0, candidate)))

    # An e with single(e) <= e holds, and then so does single(e) itself, which is smaller: descend while that pays.
    candidate = max(single(0.0), 1e-9)
    while single(candidate) > candidate:
        candidate *= 1.25
        if candidate > _LARGEST_PLD_EPSILON:
            return math.inf
    for _ in range(30):
        previous, candidate = candidate, single(candidate)
        if previous - candidate <= 1e-5 * previous:
            break
    return 2 * candidate
