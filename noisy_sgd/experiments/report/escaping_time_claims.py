"""What Zhou et al. (2020) claim about the escapes of SGD and Adam from sharp wells, as functions from the record.

    rows = claims.judge(escaping_time_claims.CLAIMS, results)

Tested by tests/studies/escaping_time_test.py.
"""

import math
from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import escaping_time as study


def longer(tail: float | None, *arms: str) -> Callable[[records.Record], claims.Outcome]:
    """The ratio of two escaping times; reached if the interval of its logarithm is above 0."""

    def measure(run: records.Record) -> claims.Outcome:
        (found,) = (line for line in run.results["summary"] if (line["tail"], line["arms"]) == (tail, list(arms)))
        mean, low, high = (math.exp(found[key]) for key in ("mean", "low", "high"))
        here = f"{mean:.2f} [{low:.2f}, {high:.2f}] times as long, {found['problems']} problems"
        return claims.Outcome(here=here, reached=found["low"] > 0)

    return measure


def longer_under_heavy_tails(run: records.Record) -> claims.Outcome:
    """Adam's time over SGD's under heavy tails over the same under Gaussian noise; reached if above 1."""
    ratio = longer(None, "adam", "sgd")(run)
    each = [longer(tail, "adam", "sgd")(run).here.split(" times")[0] for tail in study.TAILS]
    here = f"{each[0]} times under heavy tails, {each[1]} times under Gaussian noise"
    return claims.Outcome(here=f"{here}: ratio {ratio.here.split(' times')[0]}", reached=ratio.reached)


CLAIMS = (
    claims.of_run(
        "Under noise of tail index 1.5 Adam stays longer in the sharp well than SGD, both with the same contraction "
        "per step (95 % interval of the ratio above 1)",
        "Zhou et al. 2020: SGD escapes sooner",
        "escaping_time",
        "two_wells",
        longer(1.5, "adam", "sgd"),
    ),
    claims.of_run(
        "The same against SGD with Adam's averaging of gradients: normalization alone makes Adam stay longer",
        "Zhou et al. 2020: averaging and normalization",
        "escaping_time",
        "two_wells",
        longer(1.5, "adam", "momentum"),
    ),
    claims.of_run(
        "Heavy tails are the reason: Adam's time over SGD's is larger at tail index 1.5 than under Gaussian noise (95 "
        "% interval of the paired ratio above 1)",
        "Zhou et al. 2020: explained by heavy tails",
        "escaping_time",
        "two_wells",
        longer_under_heavy_tails,
    ),
)
