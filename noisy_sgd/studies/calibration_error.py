"""How far predicted probabilities are from how often they are right: expected calibration error, reliability diagram.

The confidence of a prediction is its largest probability. Over M bins of confidence ((m - 1) / M, m / M] with n_m of n
examples each (Guo et al. 2017, arXiv 1706.04599),

    ECE = sum_m (n_m / n) | accuracy_m - confidence_m |

The gap of each bin is what a reliability diagram shows. Averaging the probabilities of late iterates of DP-SGLD, or of
DP-SGD, approximates the mean over its posterior, and usually makes the predictions less overconfident.

    averaged = calibration_error.mean_probabilities(softmax(logits) for logits in late_iterates)
    calibration_error.expected_calibration_error(averaged, labels)
    calibration_error.expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1])    # |1/2 - 0.9| = 0.4
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from noisy_sgd import checks

# Rounding of a softmax in single precision, over a thousand classes.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability diagram, bin by bin, the least confidence first; NaN in a bin without examples.

    Attributes:
        edges: [bins + 1], of the bins.
        counts: [bins], the number of examples.
        confidences: [bins], the mean confidence.
        accuracies: [bins], the fraction of examples that are predicted right.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidences: np.ndarray
    accuracies: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """The mean over the examples of their bin's gap between accuracy and confidence."""
        full = self.counts > 0
        gaps = np.abs(self.accuracies[full] - self.confidences[full])
        return float(np.sum(self.counts[full] * gaps) / np.sum(self.counts))


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """The expected calibration error, in [0, 1].

    Args:
        probabilities: [n, classes], each row with sum 1.
        labels: [n], integers in [0, classes).
        bins: M. Defaults to 15.

    Raises:
        ValueError: for probabilities or labels of other shapes or values.
    """
    return reliability(probabilities, labels, bins).expected_calibration_error


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> Reliability:
    """The reliability diagram; the arguments are those of `expected_calibration_error`."""
    bins = checks.count("bins", bins)
    rows = _probabilities(probabilities)
    truth = np.asarray(labels)
    valid = truth.shape == rows.shape[:1] and truth.dtype.kind in "iu"
    valid = valid and bool(np.all((truth >= 0) & (truth < rows.shape[1])))
    constraint = f"must be {len(rows)} integers in [0, {rows.shape[1]}), one for each row of `probabilities`"
    checks.require(valid, "labels", constraint, f"{truth.dtype} of shape {truth.shape}")
    confidence, right = rows.max(axis=1), rows.argmax(axis=1) == truth
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values, minlength=bins) for values in (confidence, right)]
    confidences, accuracies = (np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in sums)
    return Reliability(edges=edges, counts=counts, confidences=confidences, accuracies=accuracies)


def mean_probabilities(iterates: Iterable[npt.ArrayLike]) -> np.ndarray:
    """The mean of the predicted probabilities of several iterates, [n, classes]; only one of them is held at a time.

    Args:
        iterates: at least one array of probabilities [n, classes], all of the same examples.

    Raises:
        ValueError: for none, or arrays that are not probabilities of the same shape.
    """
    total, count = None, 0
    for probabilities in iterates:
        rows = _probabilities(probabilities)
        same = total is None or total.shape == rows.shape
        checks.require(same, "iterates", "must hold arrays of one shape", rows.shape)
        total, count = rows if total is None else total + rows, count + 1
    if total is None:
        raise ValueError("`iterates` must hold at least one array of probabilities. Received: none")
    return total / count


def _probabilities(received: npt.ArrayLike) -> np.ndarray:
    rows = np.asarray(received, dtype=np.float64)
    valid = rows.ndim == 2 and rows.size > 0 and bool(np.all((rows >= 0) & (rows <= 1 + _TOLERANCE)))
    valid = valid and bool(np.all(np.abs(rows.sum(axis=1) - 1) <= _TOLERANCE))
    constraint = "must be [n, classes], each row at least 0 with sum 1; take the softmax of logits"
    checks.require(valid, "probabilities", constraint, rows.shape)
    return rows
