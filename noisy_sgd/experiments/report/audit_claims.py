"""Whether attacks refute what DP-SGD claims, and whether Noisy-SGD with its noise could claim it: beyond the paper.

The records are those of the binary audit; all bounds have a confidence of 99.99 %.

    rows = claims.judge(audit_claims.CLAIMS, results)

Tested by tests/experiments/report/audit_claims_test.py.
"""

from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments.report import claims

_EXPERIMENT, _RUN, _CORRELATED = "audit", "digits", "correlated"
_FEWEST_RUNS = 20
# One run needs more canaries than the network has weights to refute a larger epsilon.
_LARGEST_IN_ONE_RUN = 4.0


def holds(run: records.Record) -> claims.Outcome | None:
    """DP-SGD's bounds; reached if all lie below the claim, in 20 runs or more, and could have exceeded it."""
    cases = [case for case in run.results["cases"] if case["algorithm"] == "dp_sgd"]
    one_run = [case for case in cases if case["audit"] == "one run"]
    if not one_run or min(case["count"] for case in one_run) < _FEWEST_RUNS:
        return None
    able = all(case["largest_bound"] > case["epsilon"] for case in cases)
    return claims.Outcome(here=_listed(cases), reached=able and all(case["below"] == case["count"] for case in cases))


def refuted(audit: str, largest: float) -> Callable[[records.Record], claims.Outcome | None]:
    """Noisy-SGD's bounds at DP-SGD's noise; reached if all exceed what DP-SGD claims, up to the largest epsilon."""

    def measure(run: records.Record) -> claims.Outcome | None:
        cases = [case for case in run.results["cases"] if (case["algorithm"], case["audit"]) == ("noisy_sgd", audit)]
        judged = [case for case in cases if case["epsilon"] <= largest]
        if not judged:
            return None
        return claims.Outcome(here=_listed(cases), reached=all(case["lowest"] > case["epsilon"] for case in judged))

    return measure


def _listed(cases) -> str:
    return "; ".join(
        f"{case['audit']}, epsilon {case['epsilon']:g}: {case['below']} of {case['count']} below, bounds "
        f"{case['lowest']:.2f} to {case['highest']:.2f} of at most {case['largest_bound']:.2f}"
        for case in cases
    )


CLAIMS = (
    claims.of_run(
        "Audits do not refute DP-SGD's epsilon (the lower bounds of all runs, at least 20 for each epsilon, lie below "
        "it, and their provable maximum above it)",
        "not mentioned",
        _EXPERIMENT,
        _RUN,
        holds,
    ),
    claims.of_run(
        "Audits do not refute DP-SGD's epsilon with noise correlated over steps, lambda = 0.9 (the lower bounds of all "
        "runs, at least 20 for each epsilon, lie below it, and their provable maximum above it)",
        "not mentioned",
        _EXPERIMENT,
        _CORRELATED,
        holds,
    ),
    claims.of_run(
        "Noisy-SGD with the noise of DP-SGD has no such guarantee (audits with many canaries: all lower bounds exceed "
        "DP-SGD's epsilon at 1 and 4)",
        "not mentioned",
        _EXPERIMENT,
        _RUN,
        refuted("one run", _LARGEST_IN_ONE_RUN),
    ),
    claims.of_run(
        "Noisy-SGD with the noise of DP-SGD has no such guarantee (audit with many runs: the lower bound exceeds "
        "DP-SGD's epsilon at every epsilon)",
        "not mentioned",
        _EXPERIMENT,
        _RUN,
        refuted("many runs", float("inf")),
    ),
)
