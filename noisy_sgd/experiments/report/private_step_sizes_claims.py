"""Claims on the best learning rates of private optimizers, from records of the binary private_step_sizes.

    rows = claims.judge(private_step_sizes_claims.CLAIMS, results)

Tested by tests/experiments/report/image_study_claims_test.py.
"""

import functools

from noisy_sgd.experiments.report import verdict_claims

_claim = functools.partial(verdict_claims.of_row, experiment="private_step_sizes", name="images")
_PAPER = "arXiv 2603.03226, an SDE perspective on private optimizers"

CLAIMS = (
    _claim(
        "DP-SGD's best learning rate falls with the noise multiplier: the slope of their log2 is below -0.5 (-1 in "
        "theory)",
        _PAPER,
        row="dp_sgd",
    ),
    _claim(
        "DP-SignSGD's best learning rate hardly depends on the noise multiplier: the slope lies within (-0.25, 0.25)",
        _PAPER,
        row="dp_sign_sgd",
    ),
    _claim(
        "DP-Adam's best learning rate hardly depends on the noise multiplier: the slope lies within (-0.25, 0.25)",
        _PAPER,
        row="dp_adam",
    ),
)
