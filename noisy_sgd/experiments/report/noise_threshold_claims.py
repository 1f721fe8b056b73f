"""How far the figures' order depends on step size and noise, and how often runs diverge: beyond the paper.

The records are those of the binary noise_threshold.

    rows = claims.judge(noise_threshold_claims.CLAIMS, results)

Tested by tests/experiments/report/diagonal_linear_claims_test.py.
"""

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import diagonal_linear

_SMALL_STEPS = (0.4, 0.5)


def divergence(run: records.Record) -> claims.Outcome | None:
    """Shares of diverged runs at the paper's step size; reached if they rise with the noise."""
    lines = [line for line in run.metrics if abs(line["relative_step"] - diagonal_linear.PAPER_STEP) < 1e-9]
    shares = {}
    for noise in (0.0, 0.25, 0.5):
        case = [line for line in lines if line["noise_scale"] == noise]
        if not case:
            return None
        shares[noise] = sum(line["diverged"] for line in case) / sum(line["num_runs"] for line in case)
    listed = ", ".join(f"{100 * share:.0f} % at sigma = {noise:g}" for noise, share in shares.items())
    count = sum(line["num_runs"] for line in case)
    return claims.Outcome(here=f"{listed} ({count} runs each)", reached=shares[0.0] < shares[0.25] < shares[0.5])


def small_steps(run: records.Record) -> claims.Outcome | None:
    """On how many data sets noise helps at smaller steps; reached if on no more than a third at each."""
    found = []
    for step in _SMALL_STEPS:
        better = []
        for data_seed in sorted({line["data_seed"] for line in run.metrics}):
            case = [line for line in run.metrics if (line["data_seed"], line["relative_step"]) == (data_seed, step)]
            plain, noisy = ([line for line in case if line["noise_scale"] == noise] for noise in (0.0, 0.5))
            if not (plain and noisy):
                return None
            if None not in (plain[0]["squared_distance"], noisy[0]["squared_distance"]):
                better.append(noisy[0]["squared_distance"] < plain[0]["squared_distance"])
        found.append((step, sum(better), len(better)))
    here = ", ".join(f"{better} of {total} at {step:g}" for step, better, total in found)
    return claims.Outcome(here=here, reached=all(3 * better <= total for _, better, total in found))


CLAIMS = (
    claims.of_run(
        "Runs diverge at the paper's step size, the more the larger the noise (rates at sigma = 0, 0.25, 0.5)",
        "not mentioned",
        "noise_threshold",
        "map",
        divergence,
    ),
    claims.of_run(
        "The gain by noise is an effect of large steps (sigma = 0.5 beats SGD on at most a third of the data sets at "
        "gamma lambda_max = 0.4 and 0.5)",
        "not mentioned; its step is 0.77",
        "noise_threshold",
        "map",
        small_steps,
    ),
)
