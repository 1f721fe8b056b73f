"""Figures drawn from recorded runs, as PNG and PDF beside the CSV behind them.

images          test accuracy over batch sizes and steps, norms of gradient and noise (Figures 1 and 2)
diagonal_linear, least_squares, deep_diagonal, many_data_sets, noise_threshold, sde_error    of the toy experiments
direction_matters, gradient_variance, sparse_features, escaping_time    of claims of related papers on toy problems
batch_size_effect, private_optimizers, privacy_budget, tan_search, audit    of the studies of the same names
clipping_or_noise, pruning, landscape, noise_benefit, private_step_sizes, gradient_tails    likewise
fixed_epsilon_noise    the noise that a fixed epsilon needs, over batch sizes
speed           of the benchmark
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, {}, lazy.modules(__path__))
