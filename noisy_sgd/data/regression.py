"""Synthetic regression problems: the sparse design of the paper's section 4.2, and a noisy one for least squares.

Sparse, for diagonal linear networks (n = 40, d = 100, 5 non-zeros): x_i ~ N(0, I), y = X beta*. The paper does not
state the law of the non-zeros; here they are Gaussian, rescaled to the |beta*|^2 = 5.61 of its figures' first point.

    problem = regression.sparse(seed=0)
    problem.features, problem.targets, problem.solution    # [40, 100], [40], [100]
"""

import dataclasses

import numpy as np

from noisy_sgd import checks, keys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A linear regression.

    Attributes:
        features: X [n, d].
        targets: Y [n].
        solution: beta* [d], which generated the targets.
    """

    features: np.ndarray
    targets: np.ndarray
    solution: np.ndarray

    @property
    def largest_eigenvalue(self) -> float:
        """lambda_max of X^T X / n, the unit in which step sizes are given."""
        return float(np.linalg.norm(self.features, ord=2) ** 2 / len(self.features))

    @property
    def paper_step_size(self) -> float:
        """gamma = 1 / (1.3 lambda_max), the step size of the paper's figures 3 to 7."""
        return 1.0 / (1.3 * self.largest_eigenvalue)


def sparse(seed, num_examples=40, dimension=100, num_nonzeros=5, squared_norm=5.61):
    """The paper's sparse regression without label noise: x_i ~ N(0, I_d), y = X beta*.

    Args:
        seed: integer; the problem is a function of it and of the other arguments.
        num_examples: n. Defaults to 40.
        dimension: d. Defaults to 100.
        num_nonzeros: non-zero coordinates of beta*, the first ones. Defaults to 5.
        squared_norm: |beta*|^2 after rescaling; None leaves the Gaussian draw as it is. Defaults to 5.61.

    Returns:
        A `Problem`.

    Raises:
        ValueError: for sizes below 1, more non-zeros than coordinates, a norm that is not positive.
    """
    _check_sizes(num_examples, dimension)
    possible = 1 <= num_nonzeros <= dimension
    checks.require(possible, "num_nonzeros", f"must be between 1 and `dimension`={dimension}", num_nonzeros)
    usable = squared_norm is None or (np.isfinite(squared_norm) and squared_norm > 0)
    checks.require(usable, "squared_norm", "must be positive, or None", squared_norm)
    generator = keys.stream(keys.derive(seed, "synthetic data"))
    features = generator.standard_normal((num_examples, dimension))
    solution = np.zeros(dimension)
    solution[:num_nonzeros] = generator.standard_normal(num_nonzeros)
    if squared_norm is not None:
        solution *= np.sqrt(squared_norm / np.sum(solution**2))
    return Problem(features=features, targets=features @ solution, solution=solution)


def noisy(seed, num_examples, dimension, label_noise=1.0, condition_number=1.0):
    """Least squares with label noise: x_i ~ N(0, diag(s^2)), y = X beta* + label_noise N(0, I), beta* ~ N(0, I).

    Args:
        seed: integer; the problem is a function of it and of the other arguments.
        num_examples: n; above d the problem is under-parameterized, below d it is over-parameterized.
        dimension: d.
        label_noise: standard deviation of the label noise. Defaults to 1.
        condition_number: largest over smallest variance s^2; the variances are spaced geometrically below 1. Defaults
            to 1.

    Returns:
        A `Problem`.

    Raises:
        ValueError: for sizes below 1, a negative noise, a condition number below 1.
    """
    _check_sizes(num_examples, dimension)
    checks.non_negative("label_noise", label_noise)
    usable = np.isfinite(condition_number) and condition_number >= 1
    checks.require(usable, "condition_number", "must be at least 1 and finite", condition_number)
    generator = keys.stream(keys.derive(seed, "synthetic data"))
    scales = np.sqrt(np.geomspace(1.0, 1.0 / condition_number, dimension))
    features = generator.standard_normal((num_examples, dimension)) * scales
    solution = generator.standard_normal(dimension)
    targets = features @ solution + label_noise * generator.standard_normal(num_examples)
    return Problem(features=features, targets=targets, solution=solution)


def _check_sizes(num_examples, dimension):
    checks.at_least("num_examples", num_examples, 1)
    checks.at_least("dimension", dimension, 1)
