"""What Wu et al. (2021) claim about the directions of SGD's error, as functions from the record to outcomes.

    rows = claims.judge(direction_matters_claims.CLAIMS, results)

Tested by tests/studies/direction_matters_test.py.
"""

from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import direction_matters

_PROBABILITY = 0.99
_NAMES = {"gd": "gradient descent", "small_sgd": "SGD with the small rate alone"}


def two_samples(run: records.Record) -> claims.Outcome:
    """The exact law on two samples; reached if SGD's quotient is large almost surely, and gradient descent's small."""
    found = run.results["two_samples"]
    here = f"probability {found['sgd_probability']:.6f}; {found['gd_quotient']:.3f} lambda_min"
    return claims.Outcome(here=here, reached=found["sgd_probability"] >= _PROBABILITY and found["gd_quotient"] < 1.1)


def above(other: str) -> Callable[[records.Record], claims.Outcome]:
    """SGD's last quotient against that of another algorithm, over data sets; reached by the sign test."""

    def measure(run: records.Record) -> claims.Outcome:
        found = run.results["order"]
        here = f"{found[f'above_{other}']} of {found['data_sets']} data sets, p = {found[f'above_{other}_p']:.2g}; "
        here += "medians " + ", ".join(
            f"{found[f'{name}_over_largest']:.2f} ({label})" for name, label in (("sgd", "SGD"), (other, _NAMES[other]))
        )
        return claims.Outcome(here=f"{here} of lambda_max", reached=found[f"above_{other}_p"] < direction_matters.LEVEL)

    return measure


CLAIMS = (
    claims.of_run(
        "After a moderate and then a small rate, the Rayleigh quotient of SGD's error is above 0.9 lambda_max (with a "
        "probability of at least 0.99), and gradient descent's below 1.1 lambda_min: two samples, exact",
        "Wu et al. 2021: toward lambda_max, lambda_min",
        "direction_matters",
        "two_phases",
        two_samples,
    ),
    *(
        claims.of_run(
            f"The same on 20 Gaussian examples in 200 dimensions: SGD's quotient is above that of {_NAMES[other]} "
            "(sign test over data sets, p < 0.01 after Holm's adjustment for two)",
            "Wu et al. 2021: large directions against small ones",
            "direction_matters",
            "two_phases",
            above(other),
        )
        for other in _NAMES
    ),
)
