"""What is measured to answer a question: functions from problems to plain lines of numbers, without flags or files.

from noisy_sgd.studies import noise_threshold
lines = noise_threshold.measure(range(12))      # what a run directory records, and figures are drawn from
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {},
    (
        "audit",
        "batch_size_effect",
        "calibration_error",
        "clipping_or_noise",
        "deep_diagonal",
        "diagonal_linear",
        "direction_matters",
        "escaping_time",
        "fixed_epsilon_noise",
        "gradient_tails",
        "gradient_variance",
        "landscape",
        "least_squares",
        "many_data_sets",
        "noise_benefit",
        "noise_threshold",
        "privacy_budget",
        "private_optimizers",
        "private_step_sizes",
        "pruning",
        "sde_error",
        "sparse_features",
        "tan_search",
        "theory",
        "verdicts",
    ),
)
