"""Whether correlated noise pays at equal epsilon: the rows of experiments/correlated_training.

The rules are those of `studies.correlated_training.summary`, written before the final runs.

    rows = claims.judge(correlated_training_claims.CLAIMS, results)

Tested by tests/studies/correlated_training_test.py.
"""

from noisy_sgd.experiments.report import claims, verdict_claims

_SOURCE = "arXiv 2601.22334, 2505.12128, 2405.13763: other networks and data"


def _claim(text: str, row: str) -> claims.Claim:
    return verdict_claims.of_row(text, _SOURCE, "correlated_training", "mnist", row)


CLAIMS = (
    _claim(
        "Noise Z_k - lambda Z_(k-1) on cyclic batches beats independent noise on shuffled ones at equal epsilon "
        "(accuracy in points, at epsilon 1 and 8)",
        "two_draws_over_shuffled",
    ),
    _claim("The same with the best noise of up to 64 draws per step", "many_draws_over_shuffled"),
    _claim("Many draws per step beat two (as above)", "many_draws_over_two"),
    _claim(
        "Many draws per step on cyclic batches, without amplification, beat independent noise on Poisson batches with "
        "amplification, at epsilon = 8",
        "many_draws_over_poisson",
    ),
    _claim("Amplification beats many draws per step, at epsilon = 1", "poisson_over_many_draws"),
)
