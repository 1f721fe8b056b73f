"""The mean of independent lognormal numbers: its moments, and a discrete distribution that is wider than its own.

The cost of random allocation is a function of one random number (see `random_allocation`),

    S = (Y_1 + ... + Y_t) / t,    log Y_i ~ N(-1 / (2 s^2), 1 / s^2) independent,    E Y_i = 1

Every cost is E h(S) of a convex h. A spread replaces a number y by a random number of mean y. By Jensen's inequality a
spread can only raise E h. A sum of independent spreads is a spread of the sum. So this module rounds by spreading: each
number goes to its two neighbors on a grid, with the probabilities that keep the mean. What results bounds every cost
from above, for whatever grid. A grid of n points per standard deviation raises the variance by a share of 1 / (4 n^2)
for every doubling of the number of terms.

The grid is geometric, and so are its sums: e^(id) + e^(jd) = e^(id) (1 + e^((j-i)d)). All pairs of the same i - j lie
at the same distance above a grid point, and a sum of two terms costs one pass over the grid per i - j. No term is ever
subtracted, so that small probabilities are as accurate, relatively, as large ones.

    spread = spread_of_mean(noise_multiplier=1.0, count=1_000)
    log_moments(noise_multiplier=1.0, count=1_000, largest=2)    # [0, 0, log(1 + (e - 1) / 1,000)]
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

# Numbers beyond this many standard deviations of log Y (a probability of 1e-19) are not followed one by one.
_STANDARD_DEVIATIONS = 9.0
_TAIL = 1e-19


class Spread(NamedTuple):
    """A discrete distribution: `masses[i]` at exp((start + i) * spacing), and the rest at zero and at infinity.

    Attributes:
        spacing: of the logarithms.
        start: index of the first point.
        masses: probabilities of the points.
        zero: probability of 0.
        beyond: the part of the mean that is carried by infinitely large numbers, whose probability is 0: the limit of
            spreads to ever larger numbers.
    """

    spacing: float
    start: int
    masses: np.ndarray
    zero: float
    beyond: float

    @property
    def logarithms(self) -> np.ndarray:
        """Of the points."""
        return self.spacing * np.arange(self.start, self.start + len(self.masses))


def scale(noise_multiplier: float, count: int) -> float:
    """The standard deviation of S, or of log Y where that is smaller: what a grid has to resolve."""
    variance = math.expm1(min(1 / noise_multiplier**2, 700.0)) / count
    return min(1 / noise_multiplier, math.sqrt(variance))


def spread_of_mean(noise_multiplier: float, count: int, resolution: float = 50.0) -> Spread:
    """A spread of t S, the sum of `count` lognormal numbers.

    Args:
        noise_multiplier: s, at least 0.05.
        count: t, at least 1.
        resolution: grid points per standard deviation. Defaults to 50.

    Returns:
        A spread of the sum; subtract log t from its logarithms for one of the mean.
    """
    single, following = _lognormal(noise_multiplier, scale(noise_multiplier, 1) / resolution), None
    # `single` and `following` are the sums of n and of n + 1 terms, n the leading binary digits of the count.
    number, digits = 1, bin(count)[3:]
    if digits:
        following = _sum(single, single, 1)
    for place, digit in enumerate(digits, start=1):
        number = 2 * number + int(digit)
        # Sums vary less than their terms, relatively: from time to time the grid becomes finer.
        refinement = 2 if single.spacing > scale(noise_multiplier, number) / resolution else 1
        one = single if digit == "0" else following
        needed = "1" in digits[place:]
        after = _sum(one, following, refinement) if needed and digit == "1" else None
        if needed and digit == "0":
            after = _sum(single, following, refinement)
        single, following = _sum(single, one, refinement), after
    return single


def respread(spread: Spread, spacing: float, log_unit: float) -> Spread:
    """A spread of the numbers in units of exp(log_unit), on a grid of another spacing."""
    logarithms = spread.logarithms - log_unit
    left = np.floor(logarithms / spacing).astype(int)
    start, length = left[0], left[-1] - left[0] + 2
    right = spread.masses * np.clip(np.expm1(logarithms - left * spacing) / math.expm1(spacing), 0, 1)
    masses = np.bincount(left - start, spread.masses - right, length)
    masses += np.bincount(left - start + 1, right, length)
    return Spread(spacing, int(start), masses, spread.zero, spread.beyond * math.exp(-log_unit))


def log_moments(noise_multiplier: float, count: int, largest: int) -> np.ndarray:
    """log E S^k for k = 0, ..., `largest`, exactly.

    The generating function of E (Y_1 + ... + Y_t)^k / k! is the t-th power of that of E Y^k / k!, and E Y^k is
    exp(k (k - 1) / (2 s^2)).
    """
    k = np.arange(largest + 1.0)
    series = k * (k - 1) / (2 * noise_multiplier**2) - special.gammaln(k + 1)
    return _power(series, count) + special.gammaln(k + 1) - k * math.log(count)


def _power(logarithms: np.ndarray, exponent: int) -> np.ndarray:
    """A power of a power series with positive coefficients, in logarithms and of the same length."""
    size = len(logarithms)
    rows, columns = np.tril_indices(size)
    difference = np.full((size, size), -1)
    difference[rows, columns] = rows - columns

    def product(first, second):
        terms = np.append(first, -np.inf)[difference] + second
        return special.logsumexp(terms, axis=1)

    result = None
    while True:
        if exponent % 2:
            result = logarithms if result is None else product(result, logarithms)
        exponent //= 2
        if not exponent:
            return result
        logarithms = product(logarithms, logarithms)


def _lognormal(noise_multiplier: float, spacing: float) -> Spread:
    """A spread of Y."""
    middle = 1 / (2 * noise_multiplier**2)
    reach = middle + _STANDARD_DEVIATIONS / noise_multiplier
    logarithms = spacing * np.arange(-math.ceil(reach / spacing), math.ceil(reach / spacing) + 1)
    # Between two points there is a probability, and a part of the mean, which is a probability of N(1/(2s^2), 1/s^2).
    below = (logarithms + middle) * noise_multiplier
    mean_below = (logarithms - middle) * noise_multiplier
    masses, means = _normal_between(below), _normal_between(mean_below) * np.exp(-logarithms[:-1])
    right = np.clip((means - masses) / math.expm1(spacing), 0, masses)
    points = np.append(masses - right, 0.0)
    points[1:] += right
    # Less than the first point goes to it and to 0; more than the last goes to it and to infinity.
    to_first = special.ndtr(mean_below[0]) * math.exp(-logarithms[0])
    points[0] += to_first
    points[-1] += special.ndtr(-below[-1])
    zero = max(0.0, special.ndtr(below[0]) - to_first)
    beyond = max(0.0, special.ndtr(-mean_below[-1]) - special.ndtr(-below[-1]) * math.exp(logarithms[-1]))
    return _trimmed(Spread(spacing, -math.ceil(reach / spacing), points, zero, beyond))


def _normal_between(bounds: np.ndarray) -> np.ndarray:
    """The probability that a standard normal number lies between consecutive bounds, accurate in both tails."""
    low, high = bounds[:-1], bounds[1:]
    mirrored = low > 0
    return special.ndtr(np.where(mirrored, -low, high)) - special.ndtr(np.where(mirrored, -high, low))


def _sum(first: Spread, second: Spread, refinement: int) -> Spread:
    """A spread of the sum of two independent numbers of one spacing, on a grid finer by a whole number."""
    spacing = first.spacing / refinement
    least = np.logaddexp(first.start * first.spacing, second.start * second.spacing)
    start = math.floor(least / spacing) - 1
    end = refinement * max(first.start + len(first.masses), second.start + len(second.masses))
    masses = np.zeros(end + math.ceil(math.log(2) / spacing) + 2 - start)
    # From this distance on, the smaller number moves the sum by less than one point.
    far = max(1, math.ceil(-math.log(math.expm1(spacing)) / first.spacing))
    _add_pairs(masses, start, first, second, refinement, 1, far)
    _add_far_pairs(masses, start, first, second, refinement, far)
    if first is second:
        masses *= 2
    else:
        _add_pairs(masses, start, second, first, refinement, 1, far)
        _add_far_pairs(masses, start, second, first, refinement, far)
    _add_pairs(masses, start, first, second, refinement, 0, 1)
    zero = first.zero * second.zero
    for one, other in ((first, second), (second, first)):
        # The other number may be 0. Then this one stays, or goes to 0 and to the first point if it is less than that.
        less = min(len(one.masses), max(0, -((refinement * one.start - start) // refinement)))
        place = refinement * (one.start + less) - start
        stop = place + refinement * (len(one.masses) - less)
        masses[place:stop:refinement] += other.zero * one.masses[less:]
        to_first = other.zero * float(one.masses[:less] @ np.exp(one.logarithms[:less] - spacing * start))
        masses[0] += to_first
        zero += other.zero * float(one.masses[:less].sum()) - to_first
    return _trimmed(Spread(spacing, start, masses, zero, first.beyond + second.beyond))


def _add_pairs(masses, start: int, large: Spread, small: Spread, refinement: int, near: int, far: int) -> None:
    """Adds the sums of points whose indices differ by at least `near` and by less than `far`."""
    spacing = large.spacing / refinement
    nearest = max(near, large.start - small.start - len(small.masses) + 1)
    for distance in range(nearest, min(far, large.start + len(large.masses) - small.start)):
        begin = max(small.start, large.start - distance)
        end = min(small.start + len(small.masses), large.start + len(large.masses) - distance)
        pairs = small.masses[begin - small.start : end - small.start]
        pairs = pairs * large.masses[begin + distance - large.start : end + distance - large.start]
        above = math.log1p(math.exp(-distance * large.spacing)) / spacing
        right = math.expm1((above - math.floor(above)) * spacing) / math.expm1(spacing)
        place = refinement * (begin + distance) + math.floor(above) - start
        stop = place + refinement * (end - begin)
        masses[place:stop:refinement] += (1 - right) * pairs
        masses[place + 1 : stop + 1 : refinement] += right * pairs


def _add_far_pairs(masses, start: int, large: Spread, small: Spread, refinement: int, far: int) -> None:
    """Adds the sums of points whose indices differ by `far` or more: each is less than one point above the larger."""
    begin = max(large.start, small.start + far)
    indices = np.arange(begin, large.start + len(large.masses))
    if not len(indices):
        return
    larger, logarithms = large.masses[begin - large.start :], large.spacing * indices
    smaller = np.minimum(indices - far - small.start, len(small.masses) - 1)
    total = np.cumsum(small.masses)[smaller]
    mean = np.cumsum(small.masses * np.exp(small.logarithms))[smaller] * np.exp(-logarithms)
    right = np.minimum(mean / math.expm1(large.spacing / refinement), total)
    place = refinement * begin - start
    stop = place + refinement * len(indices)
    masses[place:stop:refinement] += larger * (total - right)
    masses[place + 1 : stop + 1 : refinement] += larger * right


def _trimmed(spread: Spread) -> Spread:
    """A spread on fewer points: the tails go to the ends of the rest, to zero and to infinity. The masses sum to 1."""
    masses, points = spread.masses / (spread.masses.sum() + spread.zero), np.exp(spread.logarithms)
    means = masses * points
    first = int(np.searchsorted(np.cumsum(masses), _TAIL))
    last = len(masses) - 1 - int(np.searchsorted(np.cumsum(means[::-1]), _TAIL * means.sum()))
    kept = masses[first : last + 1].copy()
    to_first = means[:first].sum() / points[first]
    kept[0] += to_first
    kept[-1] += masses[last + 1 :].sum()
    zero = spread.zero + masses[:first].sum() - to_first
    beyond = spread.beyond + means[last + 1 :].sum() - masses[last + 1 :].sum() * points[last]
    return Spread(spread.spacing, spread.start + first, kept, float(max(0.0, zero)), float(max(0.0, beyond)))
