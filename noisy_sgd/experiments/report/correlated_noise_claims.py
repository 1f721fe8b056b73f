"""What noise that is correlated over steps does to diagonal networks, as functions from the record to outcomes.

    rows = claims.judge(correlated_noise_claims.CLAIMS, results)

Tested by tests/studies/correlated_noise_test.py.
"""

from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import correlated_noise as study

_EXPERIMENT, _RUN = "correlated_noise", "diagonal_linear"
_RULE = "on at least 16 of 20 data sets; divergence is a loss"


def nearer(place: int) -> Callable[[records.Record], claims.Outcome]:
    """Wins in distance; reached if they are enough."""

    def measure(run: records.Record) -> claims.Outcome:
        found = run.results["comparisons"][place]
        lines = {
            (line["arm"], line["value"], line["scale"]): line
            for line in run.results["table"]
            if (line["alpha"], line["relative_step"]) == (study.ALPHA, study.STEP)
        }
        medians = ", ".join(
            f"{line['arm'].replace('_', ' ')} {_number(line['squared_distance'])}"
            for line in lines.values()
            if line["value"] == study.LAMBDA
        )
        plain = lines["independent", 0.0, 0.0]["squared_distance"]
        here = (
            f"{found['wins']} of {found['data_sets']} (p = {found['p']:.2g}); medians: SGD {_number(plain)}, {medians}"
        )
        return claims.Outcome(here=here, reached=_enough(found["wins"], found["data_sets"]))

    return measure


def tilt_at_equal_variance(run: records.Record) -> claims.Outcome:
    """The tilt at one variance of a step; reached if it is smaller at the same alpha."""
    found = run.results["tilts"]
    here = (
        f"|r_inf| smaller on {found['smaller_at_equal_variance']} of {found['data_sets']}, by a factor of "
        f"{_number(found['tilt_ratio'])} in the median, at {_number(found['alpha_ratio'])} of the alpha"
    )
    same = found["alpha_ratio"] is not None and 1 / study.LARGEST_FACTOR <= found["alpha_ratio"] <= study.LARGEST_FACTOR
    return claims.Outcome(here=here, reached=same and _enough(found["smaller_at_equal_variance"], found["data_sets"]))


def tilt_at_equal_alpha(run: records.Record) -> claims.Outcome:
    """The tilt at one alpha; reached if it is smaller."""
    found = run.results["tilts"]
    here = (
        f"|r_inf| smaller on {found['smaller_at_equal_alpha']} of {found['data_sets']}, by a factor of "
        f"{_number(found['tilt_ratio_at_equal_alpha'])} in the median; the grid of sigma reaches that alpha on "
        f"{found['reached']}"
    )
    return claims.Outcome(here=here, reached=_enough(found["smaller_at_equal_alpha"], found["data_sets"]))


def formula(run: records.Record) -> claims.Outcome:
    """The exact alpha over eq. (21)'s; reached if they agree."""
    ratio = run.results["over_formula"]
    holds = ratio is not None and 1 / study.LARGEST_FACTOR <= ratio <= study.LARGEST_FACTOR
    return claims.Outcome(here=f"exact over formula: {_number(ratio)}, median", reached=holds)


def _enough(wins: int, data_sets: int) -> bool:
    return wins >= study.LEAST_SHARE * data_sets


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.3g}"


def _claim(text: str, measure: Callable[[records.Record], claims.Outcome]) -> claims.Claim:
    return claims.of_run(text, "not mentioned", _EXPERIMENT, _RUN, measure)


CLAIMS = (
    _claim(
        "Noise Z_k - 0.9 Z_(k-1) at its nominal scale ends nearer to the sparse solution than SGD, at gamma lambda_max "
        f"= 0.385 ({_RULE})",
        nearer(0),
    ),
    _claim(f"The same against independent noise of the same variance of a step ({_RULE})", nearer(1)),
    _claim(f"The same against independent noise of the best sigma ({_RULE})", nearer(2)),
    _claim(f"The same with both noises at their best scale ({_RULE})", nearer(3)),
    _claim(
        "At one variance of a step it tilts less: |r_inf| is smaller on at least 16 of 20 data sets, at an alpha that "
        "is the same within a factor of 1.1",
        tilt_at_equal_variance,
    ),
    _claim(
        "At one alpha it tilts less than independent noise of the sigma that gives this alpha (on at least 16 of 20 "
        "data sets)",
        tilt_at_equal_alpha,
    ),
    _claim(
        "Eq. (21) with the variance of a step gives the exact alpha within a factor of 1.1",
        formula,
    ),
)
