"""Stochastic differential equations as values, and their integration on given Brownian increments.

An `Equation` is dX = f(X) dt + G(X) dW in the sense of Ito. Euler-Maruyama, X + h f(X) + G(X) dW, has strong order 1/2
for multiplicative and 1 for additive noise; where the noise is additive, Roessler's SRA1 has strong order 3/2:

    equation = least_squares.under_parameterized(features, targets, step_size=0.1, residual_scale=1.0, noise_scale=0.5)
    dw = brownian.increments(keys.arbitrary(0), 1000, 0.1, (200, equation.noise_dimension))
    path = euler_maruyama.integrate(equation, np.zeros((200, features.shape[1])), dw, 0.1, keep_path=True)

With a time step equal to the learning rate, Euler-Maruyama on the paper's equations *is* the discrete algorithm with
Gaussian surrogate sampling. The other equations have noise that does not commute (a common factor sqrt(L) of the
state), so that no method from increments alone has an order above 1/2.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from noisy_sgd import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Equation:
    """dX = drift(X) dt + diffusion(X, dW).

    Attributes:
        drift: state [...] to its rate of change [...].
        diffusion: state and increment [..., noise_dimension] to the change of the state; linear in the increment.
        noise_dimension: number of Brownian motions.
        additive: whether `diffusion` ignores the state.
    """

    drift: Callable
    diffusion: Callable
    noise_dimension: int
    additive: bool = False


def integrate(equation, initial, increments, step_size, *, keep_path=False):
    """Euler-Maruyama: X <- X + h f(X) + G(X) dW.

    Args:
        equation: an `Equation`.
        initial: state at time 0.
        increments: [num_steps, ..., noise_dimension], with variance `step_size`.
        step_size: h.
        keep_path: whether to return every state. Defaults to False.

    Returns:
        The last state, or with `keep_path` the array [num_steps + 1, *state].

    Raises:
        ValueError: for increments of another dimension than the equation's, or a step size that is not positive.
    """
    increments = _check(equation, increments, step_size)

    def step(state, index):
        return state + step_size * equation.drift(state) + equation.diffusion(state, increments[index])

    return _iterate(step, initial, len(increments), keep_path)


def integrate_additive(equation, initial, increments, integrals, step_size, *, keep_path=False):
    """SRA1 for additive noise, strong order 3/2 (Roessler 2010, SIAM J. Numer. Anal. 48, table 6.3).

    X <- X + h (f(X)/3 + 2 f(Y)/3) + G dW,    Y = X + 3/4 h f(X) + 3/2 G I / h,    I = int (W_s - W_t) ds.

    Args:
        equation: an `Equation` whose noise is additive.
        initial: state at time 0.
        increments: [num_steps, ..., noise_dimension], with variance `step_size`.
        integrals: I of every step, from `brownian.increments_with_integrals`.
        step_size: h.
        keep_path: whether to return every state. Defaults to False.

    Returns:
        The last state, or with `keep_path` the array [num_steps + 1, *state].

    Raises:
        ValueError: for multiplicative noise, and as `integrate`.
    """
    if not equation.additive:
        raise ValueError(
            "`equation` must have additive noise for order 3/2; use `integrate` for multiplicative noise. "
            "Received: additive=False"
        )
    increments = _check(equation, increments, step_size)
    integrals = np.asarray(integrals)
    if integrals.shape != increments.shape:
        raise ValueError(
            f"`integrals` must have the increments' shape {increments.shape}. Received: shape={integrals.shape}"
        )

    def step(state, index):
        slope = equation.drift(state)
        inner = state + 0.75 * step_size * slope + equation.diffusion(state, 1.5 / step_size * integrals[index])
        change = step_size / 3.0 * (slope + 2.0 * equation.drift(inner))
        return state + change + equation.diffusion(state, increments[index])

    return _iterate(step, initial, len(increments), keep_path)


def _iterate(step, initial, num_steps, keep_path):
    state = np.asarray(initial, dtype=np.float64)
    path = [state]
    for index in range(num_steps):
        state = step(state, index)
        if keep_path:
            path.append(state)
    return np.stack(path) if keep_path else state


def _check(equation, increments, step_size):
    checks.positive("step_size", step_size)
    increments = np.asarray(increments)
    if increments.ndim < 2 or increments.shape[-1] != equation.noise_dimension:
        raise ValueError(
            f"`increments` must have shape [num_steps, ..., {equation.noise_dimension}]. "
            f"Received: shape={increments.shape}"
        )
    return increments
