"""What Qian and Klabjan (2020) claim about the variance of mini-batch gradients, as functions from the record.

    rows = claims.judge(gradient_variance_claims.CLAIMS, results)

Tested by tests/studies/gradient_variance_test.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import gradient_variance as study

_MODELS = {"linear": "Least squares", "network": "Two-layer linear network"}


def falls(found: dict[str, Any]) -> claims.Outcome:
    """Page's trend test at every step; reached if all adjusted p-values are small."""
    here = f"largest p {max(found['p']):.2g} over steps 0 to {len(found['p']) - 1}, {found['problems']} problems"
    return claims.Outcome(here=here, reached=max(found["p"]) < study.LEVEL)


def polynomial(found: dict[str, Any]) -> claims.Outcome:
    """The fits' residuals at the steps whose degree leaves some to test, and the simulation beside them."""
    residuals = [residual for residual in found["residuals"] if residual is not None]
    here = f"relative residual at most {max(residuals):.1e} over {len(residuals)} steps; simulation within "
    here += f"{found['largest_z']:.1f} standard errors"
    return claims.Outcome(
        here=here, reached=max(residuals) < study.LARGEST_RESIDUAL and found["largest_z"] < study.LARGEST_Z
    )


def inverse_at_first(found: dict[str, Any]) -> claims.Outcome:
    """Changes of variance times B over the batch sizes; reached if there are none at step 0 and some at every later."""
    first, later = found["largest_changes"][0], found["smallest_changes"][1:]
    here = f"changes by {first:.1e} at step 0, by {100 * min(later):.2g} % or more later"
    here += f" (up to {100 * np.max(found['largest_changes']):.0f} %)"
    return claims.Outcome(here=here, reached=first < study.LARGEST_RESIDUAL and min(later) > study.SMALLEST_CHANGE)


def _of_model(
    model: str, measure: Callable[[dict[str, Any]], claims.Outcome]
) -> Callable[[records.Record], claims.Outcome]:
    def measure_record(run: records.Record) -> claims.Outcome:
        (found,) = (line for line in run.results["summary"] if line["model"] == model)
        return measure(found)

    return measure_record


_RULES = (
    (
        "the variance of the mini-batch gradient falls with the batch size at every step (Page's trend test, p < 0.01 "
        "after Holm's adjustment)",
        falls,
    ),
    (
        "it is a polynomial in 1 / B without constant term (relative residual below 1e-10, simulation within 4 "
        "standard errors)",
        polynomial,
    ),
    ("it is 1 / B times a number at the first step only (relative changes below 1e-10, above 1e-6)", inverse_at_first),
)

CLAIMS = tuple(
    claims.of_run(
        f"{label}: {text}",
        "Qian and Klabjan 2020: a polynomial in 1 / B, falling with B",
        "gradient_variance",
        "batch_sizes",
        _of_model(model, measure),
    )
    for model, label in _MODELS.items()
    for text, measure in _RULES
)
