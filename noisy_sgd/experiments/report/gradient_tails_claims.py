"""Claims on the tails of update noise, from records of the binary gradient_tails.

    rows = claims.judge(gradient_tails_claims.CLAIMS, results)

Tested by tests/experiments/report/image_study_claims_test.py.
"""

import functools

from noisy_sgd.experiments.report import verdict_claims

_claim = functools.partial(verdict_claims.of_row, experiment="gradient_tails", name="images")
_PAPER = "Zhou et al. 2020, Towards theoretically understanding why SGD generalizes better than Adam"

CLAIMS = (
    _claim(
        "Adam's update noise has lighter tails than SGD's at the same weights (tail indices of 200 random projections, "
        "Adam minus SGD, by two estimators; Gaussian control within 0.05 of 2)",
        _PAPER,
        row="adam_has_lighter_tails",
    ),
    _claim(
        "The average of gradients alone, without Adam's division, has lighter tails than SGD's noise (as above)",
        "the reason that Zhou et al. 2020 give",
        row="average_has_lighter_tails",
    ),
)
