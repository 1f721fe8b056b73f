"""Random allocation: each example is in exactly one step of each epoch, chosen at random, independently of the others.

An epoch is t = ceil(N / B) steps. Like a shuffled epoch it touches every example once. Like Poisson batches the batches
are independent of each other's examples, of any size, and secret, so that sampling amplifies the privacy.

The cost of an epoch is that of one pair of distributions on R^t (Feldman and Shenfeld 2025, arXiv 2502.08202; Chua et
al. 2024, arXiv 2412.16802), with s the noise multiplier and e_i the unit vectors:

    P = (1/t) sum_i N(e_i, s^2 I)    with the example          Q = N(0, s^2 I)    without it

The reason: let W have the law P or Q. Given the batches of all other examples, step j of the run releases a known
vector, plus the example's vector v_j if its step is j, plus Gaussian noise. In units of the noise |v_j| <= 1/s, and v_j
may depend on the earlier releases. For every j in turn, W_j v_j + N(0, I - s^2 v_j v_j^T) has the law of the last two.
So the run can be computed from W without knowing the example's step, or whether there is an example, and no divergence
of the run exceeds that of the pair, in either direction. A learned clip releases two Gaussians per step, which are one
Gaussian of a vector v_j in more dimensions. Epochs draw independently: their pairs compose. An epoch that is not
finished is a function of a whole one.

With Y_i = exp((W_i - 1/2) / s^2), the likelihood ratio dP/dQ is S = (Y_1 + ... + Y_t) / t of `lognormal_means`, and all
costs are means of convex functions of S under Q:

    delta(e), removing = E (S - exp(e))_+           delta(e), adding = E (1 - exp(e) S)_+
    Renyi(a), removing = log E S^a / (a - 1)        Renyi(a), adding = log E S^(1 - a) / (a - 1)

The privacy loss distribution comes from a spread of S, which can only raise every delta. The Renyi divergence of
removing is exact at integer orders, and log E S^a is convex in a. That of adding is bounded by a spread, and where S is
tiny by S >= (Y_1 ... Y_t)^(1/t), whose logarithm is normal. No cost exceeds that of a Gaussian per epoch, because
revealing the step of the example can only raise a divergence (joint convexity).

Replacing an example is a removal and an addition (see `noisy_sgd.privacy.accounting`). Noise that is correlated over
steps is not covered: such a mechanism refuses the scheme, because participations are not a fixed number of steps apart.

    scheme = random_allocation.RandomAllocation(num_examples=60_000, batch_size=256, seed=7)
    scheme.participation(1_000)    # five times: 1,000 steps start five epochs of 235 steps
"""

import dataclasses
import functools
import math

import dp_accounting
import numpy as np
from dp_accounting import pld
from dp_accounting.pld import pld_pmf
from scipy import special

from noisy_sgd.sampling import lognormal_means, scheme

# With less noise an epoch costs almost a Gaussian, and counts as one. With more it costs almost nothing, and counts as
# if it had this noise.
_LEAST_NOISE_MULTIPLIER, _LARGEST_NOISE_MULTIPLIER = 0.05, 1e4
# Moments up to the first order are cheap. Larger orders can only help while the divergence is small.
_MOMENTS, _MOST_MOMENTS, _SMALL = 256, 1024, 0.1
_POINTS_OF_PLD, _POINTS_OF_RENYI = 50.0, 16.0


class RandomAllocation(scheme.EpochScheme):
    """Each example is in one step of each epoch, chosen uniformly, independently of all others.

    Args:
        num_examples: N, number of examples to draw from.
        batch_size: B; a batch has N / ceil(N / B) examples on average.
        seed: integer, or a secret's bytes; the batches are a function of it alone, and independent of the noise that
            the same seed draws. Defaults to None, for accounting alone.

    Raises:
        ValueError: for a number out of its range, or a batch larger than the data.
    """

    name = "random_allocation"
    amplifies = True

    def size(self, step: int) -> int:
        """Number of examples of a step's batch."""
        return len(self.indices(step))

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of a step's batch, in increasing order, int64 [size(step)]."""
        epoch, place = self.place(step)
        order, ends = self.drawn(epoch)
        return order[ends[place] : ends[place + 1]]

    def draw(self, generator: "np.random.Generator") -> tuple[np.ndarray, ...]:
        """The examples of an epoch in the order of their steps, and where each step's examples begin."""
        steps = generator.integers(self.steps_per_epoch, size=self.num_examples)
        order = np.argsort(steps, kind="stable")
        return order, np.searchsorted(steps[order], np.arange(self.steps_per_epoch + 1))

    def participation(self, num_steps: int, *, batches_known: bool = False) -> scheme.Participation:
        """Once per epoch started, in a secret step of it; in a known one where the batches are known."""
        times = self.epochs_started(num_steps)
        if batches_known:
            return scheme.Participation(times=times)
        return OneOf(times=times, num_steps=self.steps_per_epoch)

    def in_words(self, num_steps: int, *, batches_known: bool = False) -> str:
        """The scheme as a clause of a privacy statement."""
        text = (
            f"random allocation, each of {self.num_examples} examples in exactly one step, chosen at random, of each "
            f"of {self.epochs_started(num_steps)} epochs started, of {self.steps_per_epoch} steps"
        )
        return text + (", from a known seed and so without amplification" if batches_known else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneOf(scheme.Participation):
    """One participation in each of `times` blocks of consecutive steps.

    Attributes:
        num_steps: the steps of a block. The example takes part in exactly one of them, chosen uniformly and secretly,
            independently of the other blocks.
    """

    num_steps: int

    def sampled(self, event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
        """The event of one block."""
        return event if self.num_steps == 1 else RandomAllocationDpEvent(event, self.num_steps)


@dataclasses.dataclass(frozen=True)
class RandomAllocationDpEvent(scheme.PricedEvent):
    """The steps of one epoch, of which an example takes part in one.

    Args:
        event: of the step in which it takes part; a Gaussian.
        num_steps: t, the steps of the epoch.
    """

    event: dp_accounting.DpEvent
    num_steps: int

    def divergences(self, orders: np.ndarray) -> np.ndarray:
        """Bounds of the Renyi divergences, the larger one of both directions."""
        return _divergences(self._noise_multiplier, self.num_steps, tuple(orders))

    def privacy_loss(self, interval: float) -> pld.privacy_loss_distribution.PrivacyLossDistribution:
        """A privacy loss distribution that dominates the epoch's, in each direction."""
        noise_multiplier = self._noise_multiplier
        if noise_multiplier < _LEAST_NOISE_MULTIPLIER:
            return pld.privacy_loss_distribution.from_gaussian_mechanism(
                noise_multiplier, value_discretization_interval=interval
            )
        spread = _spread(noise_multiplier, self.num_steps, _POINTS_OF_PLD)
        _, start, masses, zero, beyond = lognormal_means.respread(spread, interval, math.log(self.num_steps))
        end = start + len(masses)
        removing = masses * np.exp(interval * np.arange(start, end))
        return pld.privacy_loss_distribution.PrivacyLossDistribution(
            pld_pmf.DensePLDPmf(interval, start, removing, beyond, True),
            pld_pmf.DensePLDPmf(interval, 1 - end, masses[::-1], zero, True),
        )

    @property
    def largest_interval(self) -> float:
        """A part of the standard deviation of the privacy loss."""
        noise_multiplier = np.clip(self._noise_multiplier, _LEAST_NOISE_MULTIPLIER, _LARGEST_NOISE_MULTIPLIER)
        return lognormal_means.scale(float(noise_multiplier), self.num_steps) / _POINTS_OF_PLD

    @property
    def _noise_multiplier(self) -> float:
        if not isinstance(self.event, dp_accounting.GaussianDpEvent):
            raise ValueError(
                "`event` of a step must be one Gaussian under random allocation, because nothing else is proven; "
                f"choose sampling='poisson'. Received: event={self.event!r}"
            )
        return self.event.noise_multiplier


@functools.lru_cache(maxsize=32)
def _spread(noise_multiplier: float, count: int, resolution: float) -> lognormal_means.Spread:
    return lognormal_means.spread_of_mean(min(noise_multiplier, _LARGEST_NOISE_MULTIPLIER), count, resolution)


@functools.lru_cache(maxsize=256)
def _divergences(noise_multiplier: float, count: int, orders: tuple[float, ...]) -> np.ndarray:
    orders = np.asarray(orders)
    revealed = orders / (2 * noise_multiplier**2)
    if noise_multiplier < _LEAST_NOISE_MULTIPLIER:
        return revealed
    both = np.maximum(_removing(noise_multiplier, count, orders), _adding(noise_multiplier, count, orders))
    return np.minimum(both, revealed)


def _removing(noise_multiplier: float, count: int, orders: np.ndarray) -> np.ndarray:
    """log E S^a / (a - 1), linear in log E S^a between whole orders; infinite beyond the largest moment."""
    moments = lognormal_means.log_moments(noise_multiplier, count, _MOMENTS)
    if moments[-1] / (_MOMENTS - 1) < _SMALL:
        moments = lognormal_means.log_moments(noise_multiplier, count, _MOST_MOMENTS)
    return np.interp(orders, np.arange(len(moments)), moments, right=np.inf) / (orders - 1)


def _adding(noise_multiplier: float, count: int, orders: np.ndarray) -> np.ndarray:
    """A bound of log E S^(1 - a) / (a - 1)."""
    powers, spread = orders - 1, _spread(noise_multiplier, count, _POINTS_OF_RENYI)
    logarithms = spread.logarithms - math.log(count)
    with np.errstate(divide="ignore"):
        on_grid = special.logsumexp(np.log(spread.masses) - np.outer(powers, logarithms), axis=1)
        # Below the grid the power is continued by its tangent, which is convex.
        at_zero = np.log(spread.zero) - powers * logarithms[0] + np.log1p(powers)
    missing = _power_below(noise_multiplier, count, powers, spread, logarithms)
    return np.minimum(
        special.logsumexp([on_grid, at_zero, missing], axis=0) / powers,
        _log_geometric_power(noise_multiplier, count, powers) / powers,
    )


def _power_below(noise_multiplier, count, powers, spread, logarithms) -> np.ndarray:
    """A bound of log E S^-b where S is below the grid, by the smaller one of the geometric mean and Hoelder."""
    mean, deviation = -1 / (2 * noise_multiplier**2), 1 / (noise_multiplier * math.sqrt(count))
    tilted = special.log_ndtr((logarithms[0] - mean + powers * deviation**2) / deviation)
    tilted += _log_geometric_power(noise_multiplier, count, powers)
    # P(S < x_0) <= E (x - S)_+ / (x - x_0) for every x, and (x - S)_+ is convex.
    points = np.exp(logarithms)
    shortfall = points * (spread.zero + np.cumsum(spread.masses)) - np.cumsum(spread.masses * points)
    log_probability = min(0.0, math.log(np.min(shortfall[1:] / (points[1:] - points[0]))))
    bounds = [tilted]
    for conjugate in (2, 4, 8, 16, 32):
        power = _log_geometric_power(noise_multiplier, count, conjugate * powers) / conjugate
        bounds.append(power + (1 - 1 / conjugate) * log_probability)
    return np.min(bounds, axis=0)


def _log_geometric_power(noise_multiplier: float, count: int, powers: np.ndarray) -> np.ndarray:
    """log E (Y_1 ... Y_t)^(-b / t), which is at least log E S^-b."""
    return powers * (1 + powers / count) / (2 * noise_multiplier**2)
