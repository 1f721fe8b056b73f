"""What papers say of private optimizers, at equal epsilon: the rows of experiments/private_optimizers.

The rules are those of `studies.private_optimizers.summary`, written before the final runs.

    rows = claims.judge(private_optimizers_claims.CLAIMS, results)
"""

from noisy_sgd.experiments.report import claims, verdict_claims
from noisy_sgd.studies import private_optimizers


def _claim(text: str, source: str, row: str) -> claims.Claim:
    return verdict_claims.of_row(text, source, "private_optimizers", "mnist", row)


CLAIMS = (
    _claim(
        "DP-SGD loses accuracy with large batches at equal epsilon and equally many epochs (small less large batch "
        "size, points, 95 % interval above 0)",
        "in words, section 5",
        "gap",
    ),
    _claim(
        "LARS, the paper's own suggestion, closes a part of this gap (points above DP-SGD at the large batch size)",
        "in words, section 5",
        private_optimizers.LARS,
    ),
    _claim(
        "Extrapolation by the previous noised gradient closes a part of this gap (as above)",
        "Lin et al. 2020 (arXiv 2006.05720), without privacy",
        private_optimizers.EXTRAPOLATED,
    ),
    _claim(
        "Adam closes a part of this gap (as above)",
        "no source: the most common alternative",
        private_optimizers.ADAM,
    ),
    _claim(
        "The mean of DP-SGD's own 20 late predictions closes a part of this gap (as above)",
        "no source: the control of the next row",
        "averaged",
    ),
    _claim(
        "DP-SGLD with a falling rate, its 20 late predictions averaged, closes a part of this gap (as above)",
        "Knolle et al. 2021 (arXiv 2107.04296): on par with DP-SGD",
        private_optimizers.SGLD,
    ),
    _claim(
        "Error feedback (DiceSGD, no epsilon known) beats DP-SGD at bounds a tenth and a hundredth of the gradients' "
        "median norm, at the noise of its paper (points, large batch size)",
        "Zhang et al. 2024 (arXiv 2311.14632)",
        private_optimizers.DICE_SGD,
    ),
    _claim(
        "Random sparsification to a final rate of 0.9 is not worse than DP-SGD by half a point",
        "Zhu and Blaschko 2023 (arXiv 2112.00845): better",
        private_optimizers.SPARSE,
    ),
    _claim(
        "The mean of 20 late predictions halves the calibration error of DP-SGD's last weights (log ratio less log 2; "
        "DP-SGLD at equal noise is DP-SGD)",
        "Knolle et al. 2021 (arXiv 2107.04296)",
        "late_predictions",
    ),
    _claim(
        "DP-SGLD with a falling rate is better calibrated than DP-SGD, the late predictions of both averaged (log "
        "ratio of the calibration errors, DP-SGD's over DP-SGLD's)",
        "Knolle et al. 2021 (arXiv 2107.04296): better",
        "langevin_calibration",
    ),
)
