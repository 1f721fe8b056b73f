"""Noise correlated over steps as a matrix: what it costs, and how much noise is in a sum of gradients.

With independent draws Z_0, Z_1, ... the noise of step k is sigma (c_0 Z_k + c_1 Z_{k-1} + ...), with Z_j = 0 before the
first step. As a matrix over the steps this is sigma C^-1 Z, and C, the strategy matrix, is lower-triangular and
Toeplitz as well: the coefficients s of its first column are those of the power series 1 / c(x). With gradients G,

    G + sigma C^-1 Z = C^-1 (C G + sigma Z)

so that everything released is computed from one Gaussian of standard deviation sigma on C G (matrix mechanism, Denisov
et al. 2022, arXiv 2202.08312, where it is shown for gradients that depend on what was released before). An example
that takes part in steps o, o + b, o + 2 b, ..., at most k of them, moves C G by at most the clip norm times

    sens = max over o, and over the steps i and j in which it takes part, of ( sum_ij |<C_i, C_j>| )^(1/2)

with C_i the columns. Where s is nonnegative and nonincreasing this is exact, the worst offset is o = 0, and it is the
norm of the sum of the columns 0, b, ..., (k - 1) b (arXiv 2405.13763, theorem 2). Independent noise has sens = sqrt(k).

    toeplitz.sensitivity([1, -0.9], 1000, separation=250, times=4)       # 4.588: 4 epochs of 250 steps
    toeplitz.prefix_error([1, -0.9], 1000)                               # 2.448, in units of sigma
"""

import functools
import math
from collections.abc import Sequence

import dp_accounting
import numpy as np
from scipy import optimize, signal

from noisy_sgd import checks

# The search for a lambda ends this close to 1.
_LARGEST_LAMBDA = 1 - 1e-6
# Rounding moves the sum of a column's squares by much less.
_ROUNDED_UP = 1 + 1e-9
# Coefficients of 1 / c(x) that should be 0 are of this size, relative to the first.
_ROUNDING = 1e-12


class CorrelatedGaussian:
    """What a run with correlated noise costs: one Gaussian, whose sensitivity is that of the strategy matrix.

    Args:
        coefficients: c_0, c_1, ...
        noise_multiplier: sigma, the scale of the noise in clip norms; 0 is no noise.
    """

    def __init__(self, coefficients: Sequence[float], noise_multiplier: float):
        self._coefficients = tuple(coefficients)
        self._noise_multiplier = noise_multiplier

    # Attempts at a run are one Gaussian each, and are not priced as one run of all their steps.
    independent_steps = False

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """The event of a run.

        Args:
            participation: a `noisy_sgd.sampling.Participation` that states its `length`.

        Raises:
            ValueError: for a participation without one.
        """
        if not self._noise_multiplier:
            return dp_accounting.NonPrivateDpEvent()
        if participation.times == 0:
            return dp_accounting.NoOpDpEvent()
        if participation.length is None or participation.probability is not None:
            raise ValueError(
                "`sampling` must be 'cyclic' for noise that is correlated over steps: its cost is known where an "
                "example takes part a fixed number of steps apart, and not where batches are shuffled anew in every "
                f"epoch or drawn at random. Received: participation={participation!r}"
            )
        # The noise of float32 weights has float32 coefficients; near lambda = 1 that shows in the fifth digit.
        drawn = tuple(np.float32(self._coefficients).tolist())
        run = participation.length, participation.separation, participation.times
        sens = max(_remembered(each, *run) for each in (self._coefficients, drawn))
        if not math.isfinite(sens):
            return dp_accounting.NonPrivateDpEvent()
        return dp_accounting.GaussianDpEvent(self._noise_multiplier / sens)


def checked(coefficients: Sequence[float]) -> tuple[float, ...]:
    """The coefficients as floats, without zeros at the end.

    Raises:
        ValueError: unless they are finite and the first one is positive, also as float32.
    """
    try:
        values = np.asarray(coefficients, np.float64)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    with np.errstate(over="ignore"):
        drawn = values.astype(np.float32)
    holds = values.ndim == 1 and values.size > 0 and bool(np.isfinite(drawn).all()) and drawn[0] > 0
    checks.require(holds, "coefficients", "must be finite numbers, the first one positive", coefficients)
    return tuple(np.trim_zeros(values, "b").tolist())


def lambda_cgd(value: float) -> tuple[float, ...]:
    """(1, -lambda): the noise of the last step is taken back in part (DP-lambda-CGD, arXiv 2601.22334).

    Raises:
        ValueError: for a lambda outside [0, 1).
    """
    value = checks.real("value", value, least=0, below=1)
    return checked((1.0, -value))


def banded_inverse_square_root(bands: int) -> tuple[float, ...]:
    """The first coefficients of (1 - x)^(1/2): 1, -1/2, -1/8, ... (banded inverse square root, arXiv 2505.12128).

    Raises:
        ValueError: for less than one band.
    """
    coefficients = np.ones(checks.count("bands", bands))
    places = np.arange(1, bands)
    coefficients[1:] = np.cumprod((places - 1.5) / places)
    return tuple(coefficients.tolist())


def strategy(coefficients: Sequence[float], num_steps: int) -> np.ndarray:
    """The first column of C, float64 [num_steps]: the power series 1 / c(x)."""
    impulse = np.zeros(num_steps)
    impulse[0] = 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        return signal.lfilter([1.0], coefficients, impulse)


def sensitivity(coefficients: Sequence[float], num_steps: int, separation: int, times: int) -> float:
    """How far one example can move C G, in clip norms; infinity where the columns of C grow beyond all numbers.

    A run that ends earlier releases a part of this, and so does not cost more.

    Args:
        coefficients: c_0, c_1, ...
        num_steps: n, of the run; at least 1.
        separation: b, the number of steps from one participation of an example to the next.
        times: k, the largest number of participations.

    Raises:
        ValueError: for a number below 1.
    """
    num_steps, separation = checks.count("num_steps", num_steps), checks.count("separation", separation)
    times = min(checks.count("times", times), -(-num_steps // separation))
    column = strategy(coefficients, num_steps)
    if not np.isfinite(column).all():
        return math.inf
    rounding = _ROUNDING * column[0]
    if (column >= -rounding).all() and (np.diff(column) <= rounding).all():
        taken = np.zeros(num_steps)
        taken[: times * separation : separation] = 1.0
        squared = np.sum(signal.lfilter([1.0], coefficients, taken) ** 2)
    else:
        squared = _sum_of_products(column, separation, times)
    return math.sqrt(squared) * _ROUNDED_UP if math.isfinite(squared) else math.inf


def prefix_variances(coefficients: Sequence[float], num_steps: int) -> np.ndarray:
    """The variance of the noise in the sum of the gradients of steps 0 to k, [n], in units of sigma^2.

    Args:
        coefficients: c_0, c_1, ...
        num_steps: n, at least 1.
    """
    num_steps = checks.count("num_steps", num_steps)
    noising = np.zeros(num_steps)
    known = np.asarray(coefficients, np.float64)[:num_steps]
    noising[: len(known)] = known
    return np.cumsum(np.cumsum(noising) ** 2)


# A calibration asks for the same run with many scales of noise.
_remembered = functools.lru_cache(maxsize=256)(sensitivity)


def prefix_error(coefficients: Sequence[float], num_steps: int) -> float:
    """Root mean square, over the steps, of the noise in the sum of all gradients so far, in units of sigma.

    Args:
        coefficients: c_0, c_1, ...
        num_steps: n, at least 1.
    """
    return math.sqrt(np.mean(prefix_variances(coefficients, num_steps)))


def best(num_steps: int, epochs: int, draws: int | None = None) -> tuple[float, ...]:
    """The lambda or the bands with the least `prefix_error` times sensitivity, which is the error at equal privacy.

    Args:
        num_steps: n.
        epochs: k; an epoch is ceil(n / k) steps.
        draws: the largest number of coefficients, because a step draws noise for each of them. Defaults to None, no
            limit.

    Raises:
        ValueError: for a number below 1, or more epochs than steps.
    """
    num_steps, epochs = checks.count("num_steps", num_steps), checks.count("epochs", epochs)
    checks.require(epochs <= num_steps, "epochs", f"must be at most the {num_steps} steps", epochs)
    limit = num_steps if draws is None else min(num_steps, checks.count("draws", draws))
    separation = -(-num_steps // epochs)

    def error(coefficients: Sequence[float]) -> float:
        return prefix_error(coefficients, num_steps) * sensitivity(coefficients, num_steps, separation, epochs)

    def error_of_bands(bands: int) -> float:
        return error(banded_inverse_square_root(bands))

    found = [banded_inverse_square_root(_least(error_of_bands, limit))]
    if limit > 1:
        # The search is in log(1 - lambda): the good values are near 1.
        span = (math.log(1 - _LARGEST_LAMBDA), 0.0)
        search = optimize.minimize_scalar(lambda point: error((1.0, math.expm1(point))), bounds=span, method="bounded")
        found.append(lambda_cgd(-math.expm1(search.x)))
    return min(found, key=error)


def _least(function, largest: int) -> int:
    """Where a function of 1 to `largest` is least, if it falls and then rises: a grid of ratios, refined."""
    grid = sorted({round(largest ** (place / 24)) for place in range(25)})
    place = min(range(len(grid)), key=lambda index: function(grid[index]))
    low, high = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
    while high - low > 2:
        third = (high - low) // 3
        one, other = low + third, high - third
        if function(one) <= function(other):
            high = other
        else:
            low = one
    return min(range(low, high + 1), key=function)


def _sum_of_products(column: np.ndarray, separation: int, times: int) -> float:
    """The largest sum of |<C_i, C_j>| over the steps o, o + b, ... of one offset o, for columns of any sign."""
    num_steps = len(column)
    offsets = np.arange(min(separation, num_steps))
    totals = np.zeros(len(offsets))
    for lag in range(times):
        shift = lag * separation
        if shift >= num_steps:
            break
        # products[t] is the inner product of the first t + 1 rows of two columns that are `shift` steps apart.
        products = np.cumsum(column[shift:] * column[: num_steps - shift])
        for later in range(lag, times):
            rows = num_steps - offsets - later * separation
            inside = np.abs(products[np.maximum(rows - 1, 0)])
            totals += np.where(rows > 0, inside, 0.0) * (1 if lag == 0 else 2)
    return float(np.max(totals))
