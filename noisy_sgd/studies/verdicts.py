"""The rows of a study: claims about means over seeds, judged by Student's intervals and Holm's adjustment.

A row has parts; each part holds one number per seed, whose mean the claim says is above 0. A row of the kind `ALL` is

    confirmed    if the 95 % interval of every part lies above 0, and the row's p-value, adjusted by Holm's method over
                 the rows of the study, is below 0.05
    refuted      if the interval of some part lies below 0
    undecided    otherwise

The p-value of a part is that of the one-sided t test times two, which is below 0.05 exactly if the interval lies above
0. That of a row is the largest one of its parts. A row of the kind `ANY` claims that the mean of some part is above 0:
its p-value is the smallest one of its parts, adjusted by Holm's method over the parts. It is refuted if the intervals
of all parts lie below 0.

    rows = judge([Row("noise beats clipping", {"C = 4": [0.3, 0.5, 0.4]})])
    rows[0]["verdict"], rows[0]["parts"][0]["low"]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd import statistics

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"
ALL, ANY = "all", "any"
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim.

    Attributes:
        name: of the row.
        parts: for each part by its name, one number per seed; None or NaN for a run without a number.
        kind: `ALL` or `ANY`. Defaults to `ALL`.
    """

    name: str
    parts: Mapping[str, Sequence[float | None]]
    kind: str = ALL


def equal(differences: Sequence[float], margin: float, name: str = "difference") -> dict[str, np.ndarray]:
    """The two parts of the claim that a mean difference lies within (-margin, margin)."""
    values = _numbers(differences)
    return {f"{name} + {margin:g}": values + margin, f"{margin:g} - {name}": margin - values}


def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The verdicts of the rows of one study.

    Returns:
        For each row `row`, `kind`, `p_value` after Holm's adjustment over the rows, `verdict`, and `parts`: for each
        its `part`, `mean`, `low` and `high` of the 95 % interval, and `seeds`.
    """
    estimates = [{name: statistics.estimate(_numbers(values)) for name, values in row.parts.items()} for row in rows]
    adjusted = statistics.holm([_row_p_value(row) for row in rows])
    judged = []
    for row, found, p_value in zip(rows, estimates, adjusted, strict=True):
        below = [one.high < 0 for one in found.values()]
        above = [one.low > 0 for one in found.values()]
        combined, opposite = (all, any) if row.kind == ALL else (any, all)
        verdict = UNDECIDED
        if combined(above) and p_value < LEVEL:
            verdict = CONFIRMED
        elif opposite(below):
            verdict = REFUTED
        parts = [
            {"part": name, "mean": one.mean, "low": one.low, "high": one.high, "seeds": one.count}
            for name, one in found.items()
        ]
        judged.append({"row": row.name, "kind": row.kind, "p_value": p_value, "verdict": verdict, "parts": parts})
    return judged


def _row_p_value(row: Row) -> float:
    p_values = [_p_value(_numbers(values)) for values in row.parts.values()]
    return max(p_values) if row.kind == ALL else min(statistics.holm(p_values))


def _p_value(values: np.ndarray) -> float:
    """Twice the one-sided p-value of the claim that the mean is above 0, at most 1; 1 where there is no test."""
    if len(values) < 2 or not np.isfinite(values).all():
        return 1.0
    found = statistics.estimate(values)
    if found.std == 0:
        return float(found.mean <= 0)
    return min(1.0, 2 * float(stats.t.sf(found.mean / found.std * found.count**0.5, found.count - 1)))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    # A record holds null in place of NaN.
    return np.array([np.nan if value is None else value for value in values], np.float64)
