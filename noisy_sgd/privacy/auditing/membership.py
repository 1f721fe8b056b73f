"""Attacks on membership: was this example in the training data? Their ROC curve, its area, and TPR at a low FPR.

    loss_threshold     the lower the loss, the likelier a member (Yeom et al. 2018, arXiv 1709.01604)
    likelihood_ratio   the loss against those of runs with and without the example (Carlini et al. 2022, arXiv
                       2112.03570); one variance for all examples, as that paper advises for few runs

An area of 0.5 is chance. What counts for privacy is the true positive rate where false alarms are rare: an attack that
is sure of a few examples has an area near 0.5 and is still a breach.

>>> scores, members = np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False])
>>> auc(scores, members), true_positive_rate(scores, members, 0.0)
(0.75, 0.5)
"""

import math

import numpy as np
from scipy import stats

from noisy_sgd import checks


def loss_threshold(losses: np.ndarray) -> np.ndarray:
    """Scores of the attack by a threshold on the loss, higher for a likelier member: the negative losses."""
    return -np.asarray(losses, np.float64)


def likelihood_ratio(losses: np.ndarray, other_losses: np.ndarray, other_members: np.ndarray) -> np.ndarray:
    """Scores of the attack by a likelihood ratio: log p(loss | member) - log p(loss | no member), both normal.

    Args:
        losses: [m], the examples' losses after the run that is attacked.
        other_losses: [runs, m], after other runs, whose members the attacker knows.
        other_members: bool [runs, m].

    Returns:
        [m]; 0 for an example that is in all other runs, or in none.
    """
    losses, other_losses = np.asarray(losses, np.float64), np.asarray(other_losses, np.float64)
    members = np.asarray(other_members, bool)
    inside, outside = (_means(other_losses, which) for which in (members, ~members))
    residuals = other_losses - np.where(members, inside, outside)
    # Each example has two fitted means, which cost two degrees of freedom.
    freedom = np.sum(np.maximum(members.sum(axis=0) - 1, 0) + np.maximum((~members).sum(axis=0) - 1, 0))
    variance = max(float(np.nansum(residuals**2)) / max(int(freedom), 1), np.finfo(np.float64).tiny)
    scores = ((losses - outside) ** 2 - (losses - inside) ** 2) / (2 * variance)
    return np.where(np.isfinite(scores), scores, 0.0)


def auc(scores: np.ndarray, members: np.ndarray) -> float:
    """The area under the ROC curve: the chance that a member's score exceeds a non-member's, ties counting half.

    Raises:
        ValueError: unless there are members and non-members.
    """
    inside, outside = _split(scores, members)
    ranks = stats.rankdata(np.concatenate([inside, outside]))[: len(inside)]
    return float((ranks.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))


def true_positive_rate(scores: np.ndarray, members: np.ndarray, false_positive_rate: float) -> float:
    """The share of members that are found where at most this share of non-members is wrongly found.

    Args:
        scores: [m], higher for a likelier member.
        members: bool [m].
        false_positive_rate: in [0, 1]; below one over the number of non-members, no false alarm is allowed.

    Raises:
        ValueError: unless there are members and non-members.
    """
    inside, outside = _split(scores, members)
    checks.require(0 <= false_positive_rate <= 1, "false_positive_rate", "must lie in [0, 1]", false_positive_rate)
    alarms = math.floor(false_positive_rate * len(outside) + 1e-9)
    if alarms == len(outside):
        return 1.0
    return float(np.mean(inside > np.sort(outside)[::-1][alarms]))


def _split(scores, members):
    scores, members = np.asarray(scores, np.float64), np.asarray(members, bool)
    both = 0 < members.sum() < len(members)
    checks.require(bool(both), "members", "must hold members and non-members", f"{members.sum()} of {len(members)}")
    return scores[members], scores[~members]


def _means(losses, which):
    """Each example's mean over the runs that are meant; NaN where there is none."""
    counts = which.sum(axis=0)
    return np.where(counts > 0, np.where(which, losses, 0.0).sum(axis=0) / np.maximum(counts, 1), np.nan)
