"""The flags of the toy problems, one function a binary.

toy.diagonal_linear(["diagonal_linear", "--noise_scale=0,0.5"]).noise_scales     # (0.0, 0.5)
"""

from collections.abc import Callable, Sequence

from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import toy_problems

_STEP = {"relative_step": "gamma times the largest eigenvalue of X^T X / n"}
_SEED_AND_PLACE = {"seed": "seed of sampling and noise", "run_dir": "where the run is recorded"}
_DIAGONAL_LINEAR = {
    **_STEP,
    "figure": command_line.one_of(
        "what is drawn, over the iterations, or over the noise: the final distance, or the gap to phi's minimiser",
        toy_problems.FIGURES,
    ),
    "data_seed": "seed of the data set",
    "alpha": "scale of the initial weights",
    "num_runs": "runs at every noise scale",
    "num_steps": "iterations of every run",
    "gradient_descent": "runs it too",
    **_SEED_AND_PLACE,
}
_LEAST_SQUARES = {
    **_STEP,
    "regime": command_line.one_of("more examples than dimensions, or fewer", toy_problems.REGIMES),
    "noise_scale": "sigma",
    "num_examples": "n; by default 60, or 5 where d > n",
    "dimension": "d; by default 4, or 12 where d > n",
    "num_runs": "runs, or pairs of paths",
    **_SEED_AND_PLACE,
}
_SDE_ERROR = {
    "num_paths": "paths of the strong error",
    "noise_scale": "sigma of the strong error",
    **_SEED_AND_PLACE,
}
_FAMILY = {
    "num_data_sets": "data sets, seeds from 0 up",
    "num_runs": "runs of each case on each data set",
    "num_steps": "iterations of every run",
    "run_dir": "where the run is recorded",
}


def diagonal_linear(argv: Sequence[str]) -> toy_problems.DiagonalLinear:
    """Figures 3 to 7: gradient descent, SGD and Noisy-SGD on a diagonal linear network."""
    values = command_line.flag_set()
    default = toy_problems.DiagonalLinear()
    command_line.define(values, "diagonal linear network", default, _DIAGONAL_LINEAR)
    sigmas = "comma-separated sigmas; 0 is SGD"
    command_line.define_list(values, "diagonal linear network", "noise_scale", default.noise_scales, sigmas)
    command_line.parse(values, argv, diagonal_linear)
    noise_scales = command_line.numbers(values, "noise_scale")
    return toy_problems.DiagonalLinear(noise_scales=noise_scales, **command_line.typed(values, default))


def least_squares(argv: Sequence[str]) -> toy_problems.LeastSquares:
    """Least squares: covariances of SGD and Noisy-SGD against their laws, or Theorem 1."""
    values = command_line.flag_set()
    command_line.define(values, "least squares", toy_problems.LeastSquares, _LEAST_SQUARES)
    command_line.parse(values, argv, least_squares)
    return toy_problems.LeastSquares(**command_line.typed(values, toy_problems.LeastSquares))


def sde_error(argv: Sequence[str]) -> toy_problems.SdeError:
    """Errors of the SDEs as models of the algorithm, over the step size."""
    values = command_line.flag_set()
    command_line.define(values, "errors of the SDEs", toy_problems.SdeError, _SDE_ERROR)
    command_line.parse(values, argv, sde_error)
    return toy_problems.SdeError(**command_line.typed(values, toy_problems.SdeError))


def noise_threshold(argv: Sequence[str]) -> toy_problems.Family:
    """Where noise helps, hurts and diverges, over step sizes and noise scales."""
    return _family(argv, noise_threshold, toy_problems.Family())


def deep_diagonal(argv: Sequence[str]) -> toy_problems.Family:
    """Diagonal networks of depth 2, 3 and 4 under gradient descent, SGD and Noisy-SGD."""
    default = toy_problems.Family(num_steps=20_000, run_dir="runs/deep_diagonal")
    return _family(argv, deep_diagonal, default)


def _family(argv: Sequence[str], binary: Callable, default: toy_problems.Family) -> toy_problems.Family:
    values = command_line.flag_set()
    command_line.define(values, "data sets and runs", default, _FAMILY)
    command_line.parse(values, argv, binary)
    return toy_problems.Family(**command_line.typed(values, default))
