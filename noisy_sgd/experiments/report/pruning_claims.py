"""What Watson et al. 2023 say about pruning: the rows of experiments/pruning.

The rules are those of `studies.pruning.summary`.

    rows = claims.judge(pruning_claims.CLAIMS, results)

Tested by tests/experiments/report/verdict_claims_test.py.
"""

from noisy_sgd.experiments.report import verdict_claims

_SOURCE = "Watson et al. 2023 (arXiv 2311.06839), in words"
_STARTS = {"random": "random weights", "public": "weights trained on public digits 0 to 4"}


def _claim(text: str, row: str):
    return verdict_claims.of_row(text, _SOURCE, "pruning", "mnist", row)


CLAIMS = (
    *(
        _claim(
            f"Heavy pruning helps DP-SGD from {label}, width {width}, at epsilon = 3 (90, 95 or 99 % pruned beats no "
            "pruning: 95 % interval above 0, Holm over the three)",
            f"{start}, width {width}",
        )
        for start, label in _STARTS.items()
        for width in (128, 1024)
    ),
    *(
        _claim(
            f"Heavy pruning gains more at width 1024 than at width 128, from {label} (paired difference, 95 % interval "
            "above 0; the fraction is chosen on the tuning seeds)",
            f"{start}, wider",
        )
        for start, label in _STARTS.items()
    ),
)
