"""Auditing with many runs: one example is in the data of some runs and not of the others, and an attacker tells which.

If the training is (epsilon, delta)-DP for the addition or removal of one example, then any attack has

    TPR <= e^epsilon FPR + delta    and    1 - FPR <= e^epsilon (1 - TPR) + delta

The rates are estimated, so the bound takes their limits of Clopper and Pearson (1934): the lower one of the true
positive rate (TPR), the upper one of the false positive rate (FPR), each at half of the error probability. The attack
says "in" above a threshold, which is chosen on the first runs and counted on the others.

>>> round(epsilon_lower_bound(1000, 1000, 0, 1000, delta=0.0, confidence=0.95), 2)
5.6
"""

import math

import numpy as np
from scipy import stats

from noisy_sgd import checks
from noisy_sgd.privacy.auditing import one_run


def upper_limit(count: int, trials: int, error: float) -> float:
    """Clopper and Pearson's upper limit of a probability: too low with a probability of at most `error`."""
    return 1.0 if count == trials else float(stats.beta.ppf(1 - error, count + 1, trials - count))


def lower_limit(count: int, trials: int, error: float) -> float:
    """Clopper and Pearson's lower limit of a probability: too high with a probability of at most `error`."""
    return 0.0 if count == 0 else float(stats.beta.ppf(error, count, trials - count + 1))


def epsilon_lower_bound(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    *,
    confidence: float = one_run.CONFIDENCE,
) -> float:
    """The epsilon that an attack refutes: with this confidence, the training is not (epsilon, delta)-DP.

    Args:
        true_positives: runs with the example in which the attack says so.
        positives: runs with the example.
        false_positives: runs without the example in which the attack says that it is in.
        negatives: runs without the example.
        delta: of the claim, in [0, 1).
        confidence: the bound is too high with a probability of at most 1 - confidence. Defaults to 0.9999.

    Returns:
        Epsilon, 0 where nothing is refuted.

    Raises:
        ValueError: for counts above their numbers of runs, or a number out of its range.
    """
    for name, count, trials in (
        ("true_positives", true_positives, positives),
        ("false_positives", false_positives, negatives),
    ):
        checks.count(name, count, least=0)
        checks.require(count <= checks.count("trials", trials), name, f"must be at most {trials} runs", count)
    delta = checks.real("delta", delta, least=0, below=1)
    error = (1 - checks.real("confidence", confidence, above=0, below=1)) / 2
    hit = lower_limit(true_positives, positives, error)
    false_alarm = upper_limit(false_positives, negatives, error)
    ratios = ((hit - delta) / false_alarm, (1 - false_alarm - delta) / (1 - hit))
    return max(0.0, math.log(max(1.0, *ratios)))


def largest_bound(positives: int, negatives: int, delta: float, *, confidence: float = one_run.CONFIDENCE) -> float:
    """The provable maximum: the bound of an attack without an error."""
    return epsilon_lower_bound(positives, positives, 0, negatives, delta, confidence=confidence)


def threshold(scores: np.ndarray, included: np.ndarray, delta: float) -> float:
    """The threshold with the largest bound on these runs, a score above which the attack says "in".

    Args:
        scores: [runs].
        included: bool [runs], both values among them.
        delta: of the claim.
    """
    scores, included = np.asarray(scores, np.float64), np.asarray(included, bool)
    values = np.unique(scores)
    # The cuts lie between two neighboring scores; at most 1000 of them are tried.
    cuts = ((values[1:] + values[:-1]) / 2)[:: max(1, len(values) // 1000)] if len(values) > 1 else values
    inside, outside = np.sort(scores[included]), np.sort(scores[~included])
    hits = len(inside) - np.searchsorted(inside, cuts, side="right")
    alarms = len(outside) - np.searchsorted(outside, cuts, side="right")
    bounds = [
        epsilon_lower_bound(int(hit), len(inside), int(alarm), len(outside), delta)
        for hit, alarm in zip(hits, alarms, strict=True)
    ]
    return float(cuts[int(np.argmax(bounds))])


def audit(
    scores: np.ndarray,
    included: np.ndarray,
    delta: float,
    *,
    num_calibration_runs: int,
    confidence: float = one_run.CONFIDENCE,
) -> dict[str, float]:
    """The bound of an attack by scores: its threshold is chosen on the first runs, and counted on all others.

    Args:
        scores: [runs], higher where the example seems to be included.
        included: bool [runs], by fair coins or alternately.
        delta: of the claim.
        num_calibration_runs: how many runs choose the threshold; they are not counted.
        confidence: as in `epsilon_lower_bound`.

    Returns:
        "epsilon_lower_bound", "largest_bound", "true_positives", "positives", "false_positives" and "negatives".

    Raises:
        ValueError: if the runs of either part all have the example, or none of them.
    """
    scores, included = np.asarray(scores, np.float64), np.asarray(included, bool)
    parts = slice(None, num_calibration_runs), slice(num_calibration_runs, None)
    for part in parts:
        both = 0 < np.sum(included[part]) < len(included[part])
        constraint = "must leave runs with and without the example in both parts"
        checks.require(both, "num_calibration_runs", constraint, num_calibration_runs)
    cut = threshold(scores[parts[0]], included[parts[0]], delta)
    said, truth = scores[parts[1]] > cut, included[parts[1]]
    counts = {
        "true_positives": int(np.sum(said & truth)),
        "positives": int(np.sum(truth)),
        "false_positives": int(np.sum(said & ~truth)),
        "negatives": int(np.sum(~truth)),
    }
    return {
        "epsilon_lower_bound": epsilon_lower_bound(**counts, delta=delta, confidence=confidence),
        "largest_bound": largest_bound(counts["positives"], counts["negatives"], delta, confidence=confidence),
        **counts,
    }
