"""Figures drawn from recorded runs, as PNG and PDF beside the CSV behind them.

images          test accuracy over batch sizes and steps, norms of gradient and noise (Figures 1 and 2)
diagonal_linear, least_squares, deep_diagonal, noise_threshold, sde_error    of the toy experiments
batch_size_effect, private_optimizers, privacy_budget, audit    of the studies of the same names
speed           of the benchmark
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {},
    (
        "audit",
        "batch_size_effect",
        "deep_diagonal",
        "diagonal_linear",
        "images",
        "least_squares",
        "noise_threshold",
        "privacy_budget",
        "private_optimizers",
        "sde_error",
        "speed",
    ),
)
