"""Computes epsilon from an event: the one place where events become a number.

An event is dp_accounting's description of what was released: Gaussians in units of their own sensitivity,
Poisson-sampled or not, composed in any way. A scheme that dp_accounting has no event for makes an event that states its
own cost (`noisy_sgd.sampling.PricedEvent`). Schemes and mechanisms make the event of a run; `noisy_sgd.privacy.Plan`
asks for its epsilon.

Neighbors: under "add_or_remove" one example's clipped gradient is present or absent, and the sum changes by at most the
clip norm C. The other examples keep their numbers, which decide their positions in a shuffled order and their
augmentation. In a shuffled order the position of the absent example stays and contributes nothing; otherwise the later
batches would shift. Under "replace_one" one gradient becomes another and the sum changes by at most 2C: without
sampling the noise multiplier is halved exactly. No accountant supports Poisson sampling with "replace_one". There a
replacement counts as a removal and an addition: from an add-or-remove (epsilon, delta) follows (2 epsilon, (1 +
e^epsilon) delta).

    step = dp_accounting.PoissonSampledDpEvent(16384 / 1281167, dp_accounting.GaussianDpEvent(2.5))
    epsilon_of_event(dp_accounting.SelfComposedDpEvent(step, 72000), 8e-7, "rdp")    # 7.954
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp

from noisy_sgd import checks, sampling
from noisy_sgd.privacy import renyi

ACCOUNTANTS = ("pld", "rdp")
NEIGHBORS = ("add_or_remove", "replace_one")

# PLD rounds privacy losses up to a grid. The spacing is in proportion to epsilon, so that the grid keeps its length:
# time and memory stay bounded for a large epsilon, and the result changes by less than a share of 1e-5. dp_accounting's
# default spacing is 1e-4.
_FINEST_INTERVAL = 1e-4
_RELATIVE_INTERVAL = 1e-5
# Near e^epsilon = largest double, PLD is erratic and slow, and RDP's bound is used. Almost no noise counts as none.
_LARGEST_PLD_EPSILON = 500.0
_LEAST_NOISE_MULTIPLIER = 1e-6
# RDP of a sampled step is the logarithm of almost 1. Rounding may make it too small, even negative, by less than this
# (at most 2.6e-12 was seen).
_RDP_ROUNDING = 5e-12


def joint_noise_multiplier(*noise_multipliers: float) -> float:
    """The noise multiplier of one Gaussian that costs as much as several Gaussians on the same batch together.

    Scaled to unit noise, one example moves them by a vector of norm sqrt(sum_j z_j^-2), which is 1 / z:

        z = (sum_j z_j^-2)^(-1/2)

    Args:
        *noise_multipliers: z_j, each standard deviation in units of its own sensitivity; 0 gives 0.

    Returns:
        z.
    """
    multipliers = [checks.real("noise_multipliers", each, least=0) for each in noise_multipliers]
    return 0.0 if 0 in multipliers else 1 / math.hypot(*(1 / each for each in multipliers))


def epsilon_of_event(
    event: dp_accounting.DpEvent, delta: float, accountant: str = "pld", neighbors: str = "add_or_remove"
) -> float:
    """Epsilon of an event: the one place where events become a number.

    Args:
        event: Gaussians in units of one clip norm, sampled or not, composed in any way.
        delta: in (0, 1), well below one over the number of examples.
        accountant: "pld" (privacy loss distributions; tighter, up to 500) or "rdp" (Renyi, with the conversion of
            Balle et al. 2020). Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one" of one example. Defaults to "add_or_remove".

    Returns:
        Epsilon, at least 0; infinity where there is no guarantee.

    Raises:
        ValueError: for an argument out of its range, or an event that is not made of Gaussians.
    """
    delta = checks.real("delta", delta, above=0, below=1)
    checks.choice("accountant", accountant, ACCOUNTANTS)
    checks.choice("neighbors", neighbors, NEIGHBORS)
    return _remembered(_simplified(event), delta, accountant, neighbors)


def epsilon_by_rdp(
    event: dp_accounting.DpEvent,
    delta: float,
    neighbors: str,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """Epsilon of a computation on the results of events, whose Renyi divergences are a function of one event's.

    Args:
        event: as in `epsilon_of_event`, like the two that follow.
        delta: in (0, 1).
        neighbors: "add_or_remove" or "replace_one".
        transform: from orders and the divergences of the event to those of the computation.

    Returns:
        Epsilon, at least 0.
    """
    event = _simplified(event)
    trivial = _without_accountant(event)
    if trivial is not None:
        return trivial
    event, convert = _for_neighbors(event, neighbors)
    return convert(_by_rdp(event, transform), delta)


def rounded_up(epsilon: float) -> str:
    """Epsilon as text: four significant digits, never below the number itself."""
    if epsilon in (0, math.inf):
        return "infinity" if epsilon else "0"
    shift = 3 - math.floor(math.log10(epsilon))
    return f"{float(f'{math.ceil(epsilon * 10.0**shift - 1e-9)}e{-shift}'):g}"


# A sweep asks for the same run once per seed, and PLD takes seconds where the noise is small.
@functools.lru_cache(maxsize=256)
def _remembered(event: dp_accounting.DpEvent, delta: float, accountant: str, neighbors: str) -> float:
    """Epsilon of a simplified event."""
    epsilon = _epsilon(event, delta, accountant, neighbors)
    if neighbors == "replace_one" and any(renyi.priced(event)):
        # With little noise, a removal and an addition cost more than a replacement in known batches.
        return min(epsilon, _epsilon(_revealed(event), delta, accountant, neighbors))
    return epsilon


def _epsilon(event: dp_accounting.DpEvent, delta: float, accountant: str, neighbors: str) -> float:
    trivial = _without_accountant(event)
    if trivial is not None:
        return trivial
    event, convert = _for_neighbors(event, neighbors)
    # dp_accounting's ratios of tail masses may overflow to infinity, which is the right value.
    with np.errstate(over="ignore", divide="ignore"):
        by_rdp = convert(_by_rdp(event), delta)
        if accountant == "rdp" or by_rdp > _LARGEST_PLD_EPSILON:
            return by_rdp
        # Both are upper bounds. RDP's is the smaller one only for losses far below PLD's grid and deltas near its tail.
        return min(by_rdp, convert(_by_pld(event, by_rdp), delta))


def _without_accountant(event: dp_accounting.DpEvent) -> float | None:
    """Epsilon where nothing is released, 0, or where there is almost no noise, infinity; None for all other events."""
    gaussians = list(_gaussians(event))
    # NaN counts as no noise.
    noisy = all(noise >= _LEAST_NOISE_MULTIPLIER for noise, _ in gaussians)
    return (None if gaussians else 0.0) if noisy else math.inf


def _for_neighbors(event: dp_accounting.DpEvent, neighbors: str) -> tuple[dp_accounting.DpEvent, Callable]:
    """The event to account under add-or-remove, and how to convert its epsilon at each delta to these neighbors."""
    if neighbors == "add_or_remove":
        return event, _epsilon_of_one
    if any(sampled for _, sampled in _gaussians(event)):
        return event, _epsilon_of_two
    return _with_doubled_sensitivity(event), _epsilon_of_one


def _simplified(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """The same event, with several Gaussians on one batch as one of the same cost, and with parts as tuples."""
    match event:
        case dp_accounting.PoissonSampledDpEvent():
            return dp_accounting.PoissonSampledDpEvent(event.sampling_probability, _simplified(event.event))
        case dp_accounting.SelfComposedDpEvent():
            return dp_accounting.SelfComposedDpEvent(_simplified(event.event), event.count)
        case dp_accounting.ComposedDpEvent():
            parts = tuple(map(_simplified, event.events))
            if parts and all(isinstance(part, dp_accounting.GaussianDpEvent) for part in parts):
                return dp_accounting.GaussianDpEvent(joint_noise_multiplier(*(part.noise_multiplier for part in parts)))
            return dp_accounting.ComposedDpEvent(parts)
        case sampling.PricedEvent():
            return dataclasses.replace(event, event=_simplified(event.event))
    return event


def _revealed(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """The event for an adversary who knows the batches of the parts that state their own cost."""
    match event:
        case dp_accounting.SelfComposedDpEvent():
            return dp_accounting.SelfComposedDpEvent(_revealed(event.event), event.count)
        case dp_accounting.ComposedDpEvent():
            return dp_accounting.ComposedDpEvent(tuple(map(_revealed, event.events)))
        case sampling.PricedEvent():
            return event.event
    return event


def _gaussians(event: dp_accounting.DpEvent) -> Iterator[tuple[float, bool]]:
    """Each Gaussian's noise multiplier, and whether it acts on a sample; 0 where nothing is clipped."""
    match event:
        case dp_accounting.NoOpDpEvent():
            return
        case dp_accounting.NonPrivateDpEvent():
            yield 0.0, False
        case dp_accounting.GaussianDpEvent():
            yield event.noise_multiplier, False
        case dp_accounting.PoissonSampledDpEvent() | sampling.PricedEvent():
            yield from ((noise, True) for noise, _ in _gaussians(event.event))
        case dp_accounting.SelfComposedDpEvent():
            yield from _gaussians(event.event)
        case dp_accounting.ComposedDpEvent():
            for part in event.events:
                yield from _gaussians(part)
        case _:
            raise ValueError(f"`event` must be made of Gaussians. Received: event={event!r}")


def _with_doubled_sensitivity(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """The event for twice the sensitivity, without sampling: every noise multiplier is halved."""
    match event:
        case dp_accounting.GaussianDpEvent():
            return dp_accounting.GaussianDpEvent(event.noise_multiplier / 2)
        case dp_accounting.SelfComposedDpEvent():
            return dp_accounting.SelfComposedDpEvent(_with_doubled_sensitivity(event.event), event.count)
        case dp_accounting.ComposedDpEvent():
            return dp_accounting.ComposedDpEvent(tuple(map(_with_doubled_sensitivity, event.events)))
    return event


def _num_sampled(event: dp_accounting.DpEvent) -> int:
    """How many sampled parts an event consists of."""
    match event:
        case dp_accounting.PoissonSampledDpEvent() | sampling.PricedEvent():
            return 1
        case dp_accounting.SelfComposedDpEvent():
            return event.count * _num_sampled(event.event)
        case dp_accounting.ComposedDpEvent():
            return sum(map(_num_sampled, event.events))
    return 0


def _by_rdp(
    event: dp_accounting.DpEvent,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda orders, divergences: divergences,
) -> Callable[[float], float]:
    """Epsilon as a function of delta, by Renyi differential privacy, rounded up."""
    orders, divergences = renyi.divergences(event)
    divergences = transform(orders, np.maximum(divergences, 0) + _RDP_ROUNDING * _num_sampled(event))
    return lambda delta: float(rdp.compute_epsilon(orders, divergences, delta)[0])


def _by_pld(event: dp_accounting.DpEvent, scale: float) -> Callable[[float], float]:
    """Epsilon as a function of delta, by the privacy loss distribution on a grid fit for epsilons of that scale."""
    intervals = [part.largest_interval for part in renyi.priced(event)]
    if len(intervals) < len(list(_gaussians(event))):
        # Some parts are dp_accounting's own.
        intervals.append(max(_FINEST_INTERVAL, _RELATIVE_INTERVAL * scale))
    composed = _composed_pld(event, min(intervals))
    return lambda delta: float(composed(delta))


# For a capacity, the same run is priced at several deltas in a row.
@functools.lru_cache(maxsize=4)
def _composed_pld(event: dp_accounting.DpEvent, interval: float) -> Callable[[float], float]:
    """Epsilon as a function of delta, by the privacy loss distribution of a run on a grid."""
    if any(renyi.priced(event)):
        return _pld_of(event, interval).get_epsilon_for_delta
    return pld.PLDAccountant(value_discretization_interval=interval).compose(event).get_epsilon


def _pld_of(event: dp_accounting.DpEvent, interval: float) -> pld.privacy_loss_distribution.PrivacyLossDistribution:
    """The privacy loss distribution on a grid, of events that dp_accounting has no name for, too."""
    match event:
        case dp_accounting.SelfComposedDpEvent():
            once = _pld_of(event.event, interval)
            return once if event.count == 1 else once.self_compose(event.count)
        case dp_accounting.ComposedDpEvent():
            parts = [_pld_of(part, interval) for part in event.events]
            return functools.reduce(lambda one, other: one.compose(other), parts)
        case sampling.PricedEvent():
            return event.privacy_loss(interval)
        case dp_accounting.PoissonSampledDpEvent():
            probability, event = event.sampling_probability, event.event
        case _:
            probability = 1.0
    return pld.privacy_loss_distribution.from_gaussian_mechanism(
        event.noise_multiplier, value_discretization_interval=interval, sampling_prob=probability
    )


def _epsilon_of_one(epsilon_at: Callable[[float], float], delta: float) -> float:
    """Epsilon under add-or-remove, which is what the accountants give."""
    return epsilon_at(delta)


def _epsilon_of_two(epsilon_at: Callable[[float], float], delta: float) -> float:
    """2e for a small e with (e, delta / (1 + exp(e))) under add-or-remove: then (2e, delta) holds under replace-one."""

    def single(candidate: float) -> float:
        return epsilon_at(math.exp(math.log(delta) - np.logaddexp(0.0, candidate)))

    # If single(e) <= e, then e is a valid bound, and so is the smaller single(e): descend while the bound improves.
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
