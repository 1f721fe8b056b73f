"""What TAN says of small batches: the row of experiments/tan_search. Its rule is that of `studies.tan_search`.

    rows = claims.judge(tan_search_claims.CLAIMS, results)

Tested by tests/experiments/tan_search_test.py.
"""

from noisy_sgd.experiments.report import verdict_claims

CLAIMS = tuple(
    verdict_claims.of_row(
        f"{words}: runs with small batches at equal steps and sigma / B predict the accuracy of the private run with "
        "large ones (means within one point, two one-sided tests)",
        "TAN (Sander et al. 2023): about 0 on CIFAR-10, -2 points per doubling on ImageNet",
        "tan_search",
        name,
        "prediction",
    )
    for name, words in (("digits", "digits, B = 64 for 512"), ("mnist", "MNIST, B = 128 for 2,048"))
)
