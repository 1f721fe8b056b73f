"""What Watson et al. 2023 say about clipping and noise: the rows of experiments/clipping_or_noise.

The rules are those of `studies.clipping_or_noise.summary`.

    rows = claims.judge(clipping_or_noise_claims.CLAIMS, results)

Tested by tests/experiments/report/verdict_claims_test.py.
"""

import functools

from noisy_sgd.experiments.report import verdict_claims

_SOURCE = "Watson et al. 2023 (arXiv 2311.06839), in words"
_claim = functools.partial(verdict_claims.of_row, experiment="clipping_or_noise", name="mnist")

CLAIMS = (
    _claim(
        "Clipping costs more than noise: with tuned rates noise-only training ends with higher accuracy than clip-only "
        "training (95 % intervals above 0 at C = the median norm at the initialization and a tenth of it)",
        _SOURCE,
        row="noise beats clipping",
    ),
    _claim(
        "Clipping costs more than noise with SGD's learning rate in all arms (likewise)",
        _SOURCE,
        row="noise beats clipping at equal rates",
    ),
    _claim(
        "The late phase decides: after a switch at half of the steps DP-SGD to SGD ends nearer SGD's end, and SGD to "
        "DP-SGD nearer DP-SGD's (intervals of the position below and above 1/2)",
        _SOURCE,
        row="late phase",
    ),
    _claim(
        "The late phase decides after switches at 25, 50 and 75 % (likewise, all six intervals)",
        _SOURCE,
        row="late phase at all switches",
    ),
    _claim(
        "SGD recovers from DP-SGD's first half: it ends within half a point of SGD's accuracy (95 % interval)",
        _SOURCE,
        row="recovery",
    ),
    _claim(
        "DP-SGD is slower at first (accuracy below SGD's after an eighth of the steps, 95 % interval)",
        _SOURCE,
        row="slow start",
    ),
    _claim(
        "The loss by clipping and noise grows with the dimension (SGD less DP-SGD, width 1024 less width 128, 95 % "
        "interval above 0)",
        _SOURCE,
        row="dimension",
    ),
)
