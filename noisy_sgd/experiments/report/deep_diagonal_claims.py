"""Whether noise helps deeper diagonal networks, as functions from the record to outcomes: beyond the paper.

    rows = claims.judge(deep_diagonal_claims.CLAIMS, results)

Tested by tests/studies/deep_diagonal_test.py.
"""

from collections.abc import Callable

from scipy import stats

from noisy_sgd import records, statistics
from noisy_sgd.experiments.report import claims

# The step size in units of SGD's edge, toward which the effect grows.
_FRACTION = 0.9
_LEVEL = 0.05
# Whether noise helps, by depth.
_HELPS = {2: True, 3: False, 4: False}


def noise(depth: int) -> Callable[[records.Record], claims.Outcome | None]:
    """Noisy-SGD against SGD toward the edge, with divergence as a loss; reached by the sign test in this direction."""

    def measure(run: records.Record) -> claims.Outcome | None:
        found = {line["depth"]: line for line in run.results["order"] if line["fraction"] == _FRACTION}
        if not set(_HELPS) <= set(found):
            return None
        wins = {one: found[one]["noisy_better_divergence_lost"] for one in _HELPS}
        tests = [
            stats.binomtest(wins[one], found[one]["data_sets"], alternative="greater" if helps else "less").pvalue
            for one, helps in _HELPS.items()
        ]
        p = dict(zip(_HELPS, statistics.holm(tests), strict=True))[depth]
        line = found[depth]
        here = f"nearer than SGD on {wins[depth]} of {line['data_sets']} data sets, p = {p:.2g}; diverged: "
        here += f"{line['sgd_diverged']} (SGD), {line['noisy_sgd_diverged']} (Noisy-SGD) of {line['sgd_runs']} runs"
        return claims.Outcome(here=here, reached=p < _LEVEL)

    return measure


CLAIMS = tuple(
    claims.of_run(
        f"Depth {depth} at {_FRACTION:g} of the edge of stability: noise (sigma = 0.5) {'helps' if helps else 'hurts'} "
        "(sign test over data sets, p < 0.05 after Holm's adjustment for three depths; divergence is a loss)",
        "depth 2 only" if depth > 2 else "helps (Figure 3)",
        "deep_diagonal",
        "depths",
        noise(depth),
    )
    for depth, helps in _HELPS.items()
)
