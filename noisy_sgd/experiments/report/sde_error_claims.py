"""How well the SDEs model the algorithm as the step shrinks, as functions from the record to outcomes.

    rows = claims.judge(sde_error_claims.CLAIMS, results)

Tested by tests/studies/sde_error_test.py.
"""

from collections.abc import Callable, Mapping

from noisy_sgd import records
from noisy_sgd.experiments.report import claims

_TOLERANCE = 0.15
_LIMIT = 0.5


def weak(expected: Mapping[str, int]) -> Callable[[records.Record], claims.Outcome]:
    """Fitted weak orders; reached if all are within the tolerance of the expected ones, on every problem."""

    def measure(run: records.Record) -> claims.Outcome:
        problems = [line["orders"] for line in run.metrics if line["measurement"] == "weak"]
        found, reached = [], True
        for name, order in expected.items():
            orders = [problem[name] for problem in problems]
            found.append(f"{name.replace('_', ' ')} {min(orders):.2f} to {max(orders):.2f}")
            reached &= all(abs(one - order) <= _TOLERANCE for one in orders)
        return claims.Outcome(here=f"{'; '.join(found)}; {len(problems)} problems", reached=reached)

    return measure


def strong(run: records.Record) -> claims.Outcome:
    """Fitted strong orders; reached if both intervals lie above 1/2."""
    lines = [line for line in run.metrics if line["measurement"] == "strong"]
    here = "; ".join(
        "{} {:.2f} [{:.2f}, {:.2f}]".format(line["model"].replace("_", " "), line["order"], *line["interval"])
        for line in lines
    )
    reached = all(line["interval"][0] > _LIMIT for line in lines)
    return claims.Outcome(here=f"{here}, {lines[0]['num_paths']} paths", reached=reached)


def _weak(text: str, source: str, **expected: int) -> claims.Claim:
    return claims.of_run(
        f"{text} (within {_TOLERANCE:g} on every problem)", source, "sde_error", "orders", weak(expected)
    )


CLAIMS = (
    _weak(
        "The SDE's mean has weak order 1, and order 2 with the modified drift",
        "Li, Tai and E 2017",
        surrogate_plain_mean=1,
        surrogate_modified_mean=2,
        sampled_plain_mean=1,
        sampled_modified_mean=2,
    ),
    _weak(
        "The covariance of Gaussian steps has weak order 2",
        "not in the paper",
        surrogate_plain_covariance=2,
        surrogate_modified_covariance=2,
    ),
    _weak(
        "Under real sampling the covariance has weak order 1 with either drift: its noise is not the modeled one",
        "not in the paper; modeled by epsilon^2 H",
        sampled_plain_covariance=1,
        sampled_modified_covariance=1,
    ),
    claims.of_run(
        "The strong error of Gaussian steps falls faster than the square root of the step (95 % bootstrap interval of "
        "the order above 1/2)",
        "not in the paper; 1/2 for noise that stays",
        "sde_error",
        "orders",
        strong,
    ),
)
