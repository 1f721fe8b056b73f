"""Renyi divergences of a run, the same from every version of dp_accounting.

A Poisson-sampled Gaussian with sampling probability q and noise multiplier s has at order a the divergence (Mironov et
al. 2019, arXiv 1908.10530)

    1 / (a - 1) log A,    A = E (1 - q + q exp((2z - 1) / (2 s^2)))^a,    z ~ N(0, s^2)

At integer orders dp_accounting computes it from a finite sum. At the others it sums a series with alternating signs;
from version 0.5 on it drops the signs, which gives a bound several percent above the value, or none. At such orders
this module integrates instead: the trapezoidal rule on an analytic integrand errs by less than e^-38 of the value.

    orders, divergences = renyi.divergences(event)
    sampled_gaussian(256 / 60_000, 1.1, order=2.5)    # 2.936e-05
"""

import importlib.metadata
import math
from collections.abc import Iterator

import dp_accounting
import numpy as np
from dp_accounting import rdp
from scipy import special

from noisy_sgd import sampling

_KEEPS_SIGNS = tuple(map(int, importlib.metadata.version("dp-accounting").split(".")[:2])) < (0, 5)
# Each of the three errors (left tail, right tail, spacing) is below e^-_EXPONENT of the integral.
_EXPONENT = 40.0
# Below this noise multiplier the integrand has a sharp kink, and the grid would need too many points.
_LEAST_INTEGRATED = 0.05


def divergences(event: dp_accounting.DpEvent) -> tuple[np.ndarray, np.ndarray]:
    """Orders, and the Renyi divergence of an event at each of them, add-or-remove.

    Args:
        event: Gaussians, Poisson-sampled or not, and events that state their own cost, composed in any way.

    Returns:
        dp_accounting's default orders, and the divergences; infinite where there is no bound.
    """
    orders = np.asarray(rdp.RdpAccountant().orders)
    known = _KEEPS_SIGNS and not any(priced(event))
    return orders, (_by_dp_accounting if known else _of_event)(event, orders)


def priced(event: dp_accounting.DpEvent) -> Iterator[sampling.PricedEvent]:
    """The parts of an event that state their own cost."""
    match event:
        case sampling.PricedEvent():
            yield event
        case dp_accounting.SelfComposedDpEvent() | dp_accounting.PoissonSampledDpEvent():
            yield from priced(event.event)
        case dp_accounting.ComposedDpEvent():
            for part in event.events:
                yield from priced(part)


def sampled_gaussian(probability: float, noise_multiplier: float, order: float) -> float:
    """The divergence of one Poisson-sampled Gaussian, by integration.

    On a strip of height h around the real axis the integrand is analytic and at most exp(h^2 / (2 s^2)) times its
    value on the axis: a grid of spacing d errs by about 2 exp(h^2 / (2 s^2) - 2 pi h / d) of the integral, as long as
    h <= pi s^2, where the base of the power first vanishes.

    Args:
        probability: q, in (0, 1).
        noise_multiplier: s, at least 0.05.
        order: a, above 1.
    """
    variance = noise_multiplier**2
    height = min(math.pi * variance, math.sqrt(2 * _EXPONENT) * noise_multiplier)
    spacing = 2 * math.pi * height / (height**2 / (2 * variance) + _EXPONENT)
    # A is at least 1, and at least q^a times the integral that the right tail belongs to.
    tail = noise_multiplier * math.sqrt(2 * (_EXPONENT - order * math.log(probability)))
    z = np.arange(-tail, order + tail + spacing, spacing)
    losses = np.logaddexp(math.log1p(-probability), math.log(probability) + (2 * z - 1) / (2 * variance))
    log_mean = special.logsumexp(order * losses - z**2 / (2 * variance))
    return float(log_mean + math.log(spacing / (noise_multiplier * math.sqrt(2 * math.pi)))) / (order - 1)


def _of_event(event: dp_accounting.DpEvent, orders: np.ndarray) -> np.ndarray:
    match event:
        case dp_accounting.SelfComposedDpEvent():
            return event.count * _of_event(event.event, orders)
        case dp_accounting.ComposedDpEvent():
            return sum((_of_event(part, orders) for part in event.events), np.zeros(len(orders)))
        case sampling.PricedEvent():
            return event.divergences(orders)
        case dp_accounting.PoissonSampledDpEvent(
            sampling_probability=probability, event=dp_accounting.GaussianDpEvent(noise_multiplier=noise_multiplier)
        ) if 0 < probability < 1:
            return _of_sampled_gaussian(probability, noise_multiplier, orders)
    return _by_dp_accounting(event, orders)


def _of_sampled_gaussian(probability: float, noise_multiplier: float, orders: np.ndarray) -> np.ndarray:
    whole = orders == np.round(orders)
    event = dp_accounting.PoissonSampledDpEvent(probability, dp_accounting.GaussianDpEvent(noise_multiplier))
    values = np.empty(len(orders))
    values[whole] = _by_dp_accounting(event, orders[whole])
    if noise_multiplier >= _LEAST_INTEGRATED:
        values[~whole] = [sampled_gaussian(probability, noise_multiplier, order) for order in orders[~whole]]
    else:
        # The logarithm of A is convex in the order, and 0 at order 1: values between known orders are below the chord.
        known = np.concatenate([[1.0], orders[whole]])
        logarithms = np.concatenate([[0.0], (orders[whole] - 1) * values[whole]])
        values[~whole] = np.interp(orders[~whole], known, logarithms) / (orders[~whole] - 1)
    return values


def _by_dp_accounting(event: dp_accounting.DpEvent, orders: np.ndarray) -> np.ndarray:
    return np.asarray(rdp.RdpAccountant(orders).compose(event).rdp)
