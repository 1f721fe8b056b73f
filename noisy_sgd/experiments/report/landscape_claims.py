"""Claims on curvature and gradient noise, from records of the binary landscape.

    rows = claims.judge(landscape_claims.CLAIMS, results)

Tested by tests/experiments/report/image_study_claims_test.py.
"""

import functools

from noisy_sgd.experiments.report import verdict_claims

_claim = functools.partial(verdict_claims.of_row, experiment="landscape", name="images")
_PAPER = "Jastrzebski et al. 2020, The break-even point"

CLAIMS = (
    _claim(
        "A large learning rate leads through weights with a smaller top eigenvalue of the gradients' covariance, and a "
        "better conditioned one (B = 64, lr 0.3 against 0.03, when 95 % of the training set is fitted; logarithms of "
        "the ratios, small learning rate over large)",
        _PAPER,
        row="break_even",
    ),
    _claim(
        "A large learning rate leads through weights with a smaller top eigenvalue of the Hessian (as above)",
        _PAPER,
        row="hessian_by_learning_rate",
    ),
    _claim(
        "A small batch leads through weights with a smaller top eigenvalue of the gradients' covariance (B = 16 "
        "against 256 at lr 0.1, when 95 % is fitted; logarithm of the ratio, large batch over small)",
        _PAPER,
        row="covariance_by_batch_size",
    ),
    _claim(
        "Gaussian gradient noise of 0.006 leads to a smaller top eigenvalue of the Hessian (B = 256 at lr 0.1, when "
        "95 % is fitted; logarithm of the ratio, without noise over with it)",
        "the paper's noise against the break-even point",
        row="hessian_by_noise",
    ),
)
