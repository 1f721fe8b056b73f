"""The claim on noise at a fixed epsilon, from records of the binary fixed_epsilon_noise.

rows = claims.judge(fixed_epsilon_noise_claims.CLAIMS, results)

Tested by tests/experiments/fixed_epsilon_noise_test.py.
"""

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import fixed_epsilon_noise


def levels_off(run: records.Record) -> claims.Outcome:
    """The noise at the smallest and largest batch; reached by the rule of `studies.fixed_epsilon_noise`."""
    falls = run.results["falls"]
    first, *_, last = run.metrics[:-1]
    reached = (
        min(falls) > 0
        and falls[0] > fixed_epsilon_noise.LEAST_FIRST_FALL
        and falls[-1] < fixed_epsilon_noise.LARGEST_LAST_FALL
    )
    here = (
        f"{first['noise_std']:.3g} at B = {first['batch_size']:,}, {last['noise_std']:.3g} at B = "
        f"{last['batch_size']:,}; the first doubling takes away {100 * falls[0]:.0f} %, the last "
        f"{100 * falls[-1]:.1f} %; {100 * run.results['above_limit'] - 100:.1f} % above the noise of the whole data set"
    )
    return claims.Outcome(here=here, reached=reached)


CLAIMS = (
    claims.of_run(
        "At fixed epsilon and steps the noise on the mean gradient falls with the batch size and levels off (every "
        "doubling lowers it, the first by more than 40 %, the last by less than 5 %)",
        "Raisa et al. 2024, arXiv 2402.03990: the same at every batch size in the limit of many steps, and falling "
        "before it",
        "fixed_epsilon_noise",
        "epsilon_3",
        levels_off,
    ),
)
