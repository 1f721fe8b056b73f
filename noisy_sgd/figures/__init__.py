"""Figures drawn from recorded runs, as PNG and PDF beside the CSV behind them.

images          test accuracy over batch sizes and steps, norms of gradient and noise (Figures 1 and 2)
diagonal_linear, least_squares, deep_diagonal, many_data_sets, noise_threshold, sde_error    of the toy experiments
direction_matters, gradient_variance, sparse_features, escaping_time    of claims of related papers on toy problems
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
        "direction_matters",
        "escaping_time",
        "gradient_variance",
        "images",
        "least_squares",
        "many_data_sets",
        "noise_threshold",
        "privacy_budget",
        "private_optimizers",
        "sde_error",
        "sparse_features",
        "speed",
    ),
)
