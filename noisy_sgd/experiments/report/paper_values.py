"""Values that are read off the figures of the paper, by algorithm or by noise scale.

    paper_values.listed(paper_values.FIGURE_3)     # "0.557, 0.0422, 0.0058"

Tested by tests/experiments/report/diagonal_linear_claims_test.py.
"""

from collections.abc import Mapping

# Final test accuracy in percent by batch size, after 72,000 steps on ImageNet, read off the figure.
FIGURE_1 = {
    "sgd": {128: 59.3, 256: 56.6, 512: 54.0, 1024: 50.6},
    "noisy_sgd": {128: 59.8, 256: 57.2, 512: 54.3, 1024: 50.8},
    "dp_sgd": {128: 49.1, 256: 47.6, 512: 45.3, 1024: 43.2},
}
# Final |beta - beta*|^2 at alpha = 0.1, sigma = 0.5.
FIGURE_3 = {"gd": 0.557, "sgd": 0.0422, "noisy_sgd": 0.0058}
# Final |beta - beta*|^2 at alpha = 0.01.
FIGURE_6 = {0.0: 6.3e-5, 0.25: 5.3e-5, 0.5: 1.8e-5}
# |beta - argmin phi|^2 at alpha = 0.01.
FIGURE_7 = {0.0: 1.28e-5, 0.25: 2.03e-5, 0.5: 1.87e-5}


def listed(values: Mapping[object, float]) -> str:
    """The values, with commas between them."""
    return ", ".join(f"{value:.3g}" for value in values.values())


def within(ours: Mapping[object, float], theirs: Mapping[object, float], factor: float) -> bool:
    """Whether each of the paper's values has a counterpart within the factor."""
    return all(value / factor <= ours[name] <= value * factor for name, value in theirs.items())
