"""Means over seeds, and the slope per doubling of the batch size, with intervals; tests of trends and of equality.

The slope is fitted seed by seed, by least squares of the value against log2(batch size). Seeds are independent, so the
slopes are too, and their mean has Student's t interval with one degree of freedom less than there are seeds.

    slope_per_doubling({0: {16: 0.90, 32: 0.88}, 1: {16: 0.91, 32: 0.90}}).mean    # -0.015
    falls([[0.90, 0.88, 0.85], [0.91, 0.90, 0.86], [0.92, 0.89, 0.87]])            # p = 0.0046
    holm([0.01, 0.04, 0.03])                                                       # [0.03, 0.06, 0.06]
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `count` seeds; `half_width` is that of its 95 % interval, NaN for a single seed."""

    mean: float
    std: float
    half_width: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean, sample standard deviation (n - 1) and Student's t interval of independent values.

    Raises:
        ValueError: for no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("`values` must hold at least one number. Received: values=[]")
    if values.size == 1:
        return Estimate(mean=float(values[0]), std=float("nan"), half_width=float("nan"), count=1)
    std = float(values.std(ddof=1))
    half_width = float(stats.t.ppf(0.5 + confidence / 2, values.size - 1)) * std / np.sqrt(values.size)
    return Estimate(mean=float(values.mean()), std=std, half_width=float(half_width), count=values.size)


def slope_per_doubling(values: Mapping[int, Mapping[int, float]], confidence: float = 0.95) -> Estimate:
    """Change of a value per doubling of the batch size, with its interval over seeds.

    Args:
        values: seed -> batch size -> value; every seed with the same batch sizes, at least two.
        confidence: of the interval. Defaults to 0.95.

    Returns:
        The estimate over the seeds' least-squares slopes.

    Raises:
        ValueError: if the seeds differ in their batch sizes, or there are fewer than two of these.
    """
    grids = {tuple(sorted(by_size)) for by_size in values.values()}
    if len(grids) != 1 or len(next(iter(grids))) < 2:
        raise ValueError(
            f"`values` must have the same two or more batch sizes for every seed. Received: {sorted(grids)}"
        )
    sizes = next(iter(grids))
    slopes = [np.polyfit(np.log2(sizes), [by_size[size] for size in sizes], 1)[0] for by_size in values.values()]
    return estimate(slopes, confidence)


def falls(values: Sequence[Sequence[float]]) -> float:
    """The p-value of Page's trend test: whether the values of every seed fall from column to column.

    The null hypothesis is that all orders are equally likely (E. B. Page 1963).

    Args:
        values: [seeds, conditions], the conditions in the order in which the values should fall; at least three.
    """
    return float(stats.page_trend_test(-np.asarray(values, dtype=np.float64)).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: reject where the adjusted p-value is below the level that holds for the family."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def equivalent(differences: Sequence[float], margin: float, level: float = 0.05) -> bool:
    """Whether two one-sided tests show that the mean difference lies within (-margin, margin).

    Both tests reject exactly if the interval of confidence 1 - 2 level lies within the margin (Schuirmann 1987).

    Args:
        differences: independent paired differences; at least two.
        margin: the largest difference that counts as none; positive.
        level: of either test. Defaults to 0.05.
    """
    found = estimate(differences, 1 - 2 * level)
    return -margin < found.low and found.high < margin
