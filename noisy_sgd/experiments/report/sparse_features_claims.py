"""What Andriushchenko et al. (2023) claim about large steps and sparsity, as functions from the record to outcomes.

    rows = claims.judge(sparse_features_claims.CLAIMS, results)

Tested by tests/studies/sparse_features_test.py.
"""

from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import sparse_features as study


def trend(key: str, first: int) -> Callable[[records.Record], claims.Outcome]:
    """Distances by length of the phase of large steps, from the length of this index up; reached by the trend test."""

    def measure(run: records.Record) -> claims.Outcome:
        found = run.results["summary"]
        # A median over data sets is null if most of them are lost.
        medians = [float("inf") if value is None else value for value in found["squared_distance"]]
        listed = ", ".join(f"{value:.3g}" for value in medians[first:])
        lengths = ", ".join(f"{length:,}" for length in found["lengths"][first:])
        here = f"p = {found[key]:.2g}; medians {listed} after {lengths} large steps, {found['data_sets']} data sets; "
        here += f"{sum(found['diverged'][first:])} of {found['runs'] * len(medians[first:])} runs diverged"
        return claims.Outcome(here=here, reached=found[key] < study.LEVEL)

    return measure


CLAIMS = (
    claims.of_run(
        "SGD ends nearer to the sparse solution, the longer large steps precede the small ones (Page's trend test, "
        "p < 0.01; divergence is a loss)",
        "Andriushchenko et al. 2023: sparser features (networks)",
        "sparse_features",
        "large_steps",
        trend("p", 0),
    ),
    claims.of_run(
        "The same among runs that had large steps: longer is nearer (Page's trend test, p < 0.01)",
        "Andriushchenko et al. 2023: the longer, the sparser",
        "sparse_features",
        "large_steps",
        trend("p_above_0", 1),
    ),
)
