"""The paper's stochastic differential equations and closed forms, in NumPy float64 and without TensorFlow.

brownian            increments of Brownian motion that coarsen exactly
euler_maruyama      equations as values, and two integrators
least_squares       eqs. 12, 14, 15 (corrected), 16 and Theorem 1
diagonal_linear     eqs. 18, 19, 21 and Propositions 2 and 3
deep_diagonal       the same for networks w+^D - w-^D of any depth D
linear_stability    the largest step size at which runs contract
moments             mean and covariance over time: of the equation, of its steps, of real sampling
mirror_map          the hyperbolic entropy of eq. 8 and its constrained minimizer
"""

from noisy_sgd.sde import (
    brownian,
    correlated_noise,
    deep_diagonal,
    diagonal_linear,
    euler_maruyama,
    least_squares,
    linear_stability,
    mirror_map,
    moments,
)

__all__ = [
    "brownian",
    "correlated_noise",
    "deep_diagonal",
    "diagonal_linear",
    "euler_maruyama",
    "least_squares",
    "linear_stability",
    "mirror_map",
    "moments",
]
