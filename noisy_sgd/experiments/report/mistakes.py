"""Mistakes and omissions in the paper, each with the row of the report that shows it, if a measurement can.

    for mistake in mistakes.MISTAKES:
        mistake.printed, mistake.correct, mistakes.row(mistake, rows)

Tested by tests/experiments/report/pages_test.py.
"""

import dataclasses
from collections.abc import Iterable

from noisy_sgd.experiments.report import claims


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A mistake.

    Attributes:
        place: in the camera-ready version.
        printed: what it says.
        correct: what is right, and why.
        shown_by: how the claim begins whose row shows it. Defaults to None: it follows by reading or by calculation.
    """

    place: str
    printed: str
    correct: str
    shown_by: str | None = None


MISTAKES = (
    Mistake(
        place="eq. (15) and (36), least squares",
        printed="noise adds (sigma^2 / 4) H^-1 to the limiting covariance",
        correct="(sigma^2 / 2) H^-1: the Lyapunov equation has the noise term once, not half",
        shown_by="Least squares, Noisy-SGD: noise adds",
    ),
    Mistake(
        place="section 4.2, the step size of Figures 3 to 7",
        printed="eq. (10) and (21) describe alpha_inf",
        correct="they are laws of small steps, and gamma lambda_max = 0.77 is not small",
        shown_by="The same at the paper's own step size, Noisy-SGD",
    ),
    Mistake(
        place="section 4.2, divergence",
        printed="not mentioned",
        correct="at the step size of the figures runs diverge on some data sets, and on more of them with noise",
        shown_by="Noise makes runs diverge on more data sets",
    ),
    Mistake(
        place="Figure 4",
        printed="the gap rises with the noise at gamma lambda_max = 0.77",
        correct="it rises at steps where the theory holds, and is not seen at the paper's own",
        shown_by="Figure 4 at gamma lambda_max = 0.77",
    ),
    Mistake(
        place="Figure 1, DP-SGD's curve beside Noisy-SGD's",
        printed="both in one figure, beside the words that the noise of Noisy-SGD is four times greater",
        correct="DP-SGD's runs are another paper's, with another learning rate and other augmentation too: no "
        "controlled comparison of clipping",
        shown_by="MNIST, clean labels, perceptron: DP-SGD has the slope of noise alone",
    ),
    Mistake(
        place="Figures 3 and 5",
        printed="0.0058 and 0.0117 for the same setting (alpha = 0.1, sigma = 0.5)",
        correct="means of five runs differ by a factor of two from one batch of runs to the next",
    ),
    Mistake(
        place="section 2.2, the loss of diagonal networks",
        printed="the sum over examples of squared residuals",
        correct="1 / (4 n) times that sum: the equations that follow have the gradient of this one",
    ),
    Mistake(
        place="Theorem 1",
        printed="gamma <= 1 / Tr H, and an integral without expectation",
        correct="the proof holds for gamma <= 2 / Tr H, with the expectation of the integral",
        shown_by="Theorem 1 bounds the distance",
    ),
    Mistake(
        place="eq. (19)",
        printed="independent noise in w+ and w-, both with the sign +",
        correct="one Brownian motion with opposite signs: with independent ones alpha_inf keeps a random factor",
    ),
    Mistake(
        place="eq. (18)",
        printed="w_{t+1} without w_t on the right",
        correct="w_{t+1} = w_t - gamma times the gradient + noise",
    ),
    Mistake(
        place="appendix B, the Hessian of the potential",
        printed="4 alpha^2 under the root",
        correct="4 alpha^4",
    ),
    Mistake(
        place="caption of Figure 7",
        printed="alpha = 0.1 and alpha = 0.01",
        correct="alpha = 0.01: the text says so, and the gaps are of its size",
        shown_by="Figure 7's gaps at alpha = 0.01",
    ),
)


def row(mistake: Mistake, rows: Iterable[claims.Row]) -> claims.Row | None:
    """The row that shows a mistake, if the report has it."""
    if mistake.shown_by is None:
        return None
    return next((one for one in rows if one.claim.startswith(mistake.shown_by)), None)
