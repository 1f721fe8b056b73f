"""Claims on small against large batches, from records of the binary noise_benefit.

    rows = claims.judge(noise_benefit_claims.CLAIMS, results)

Tested by tests/experiments/report/image_study_claims_test.py.
"""

import functools

from noisy_sgd.experiments.report import verdict_claims

_claim = functools.partial(verdict_claims.of_row, experiment="noise_benefit", name="images")
_PAPER = "Smith et al. 2020, On the generalization benefit of noise"

CLAIMS = (
    _claim(
        "At equal steps B = 16 beats the whole training set on test examples, although it fits the training set less "
        "well (each at its best learning rate; B = 16 minus B = 1,000)",
        _PAPER,
        row="equal_steps",
    ),
    _claim(
        "At equal epochs B = 16 beats the whole training set on test examples (as above)",
        _PAPER,
        row="equal_epochs",
    ),
)
