"""What a hyper-parameter search costs that releases only its best try.

Papernot & Steinke 2022 (arXiv 2110.03620): the number of tries K is random and stays secret, each try takes its
hyper-parameters from one fixed distribution at random, and only the best try is released, judged by a score that the
try's own private output decides. Let one try have Renyi divergence e(a) at order a. Then the search has

    e(a) + (1 + eta) ((1 - 1/b) e(b) + log(1/gamma) / b) + log E[K] / (a - 1),   any b >= 1    (Theorem 2)

where K has the truncated negative binomial distribution with parameters eta > -1 and gamma: eta = 1 is the geometric
distribution, eta = 0 the logarithmic one. For a Poisson distributed K of mean m (no try with probability e^-m),

    e(a) + m d + log m / (a - 1),   one try being (log(1 + 1 / (a - 1)), d)-DP    (Theorem 6)

    selection.best_of(plan, 20, "geometric")       # epsilon; `privacy.composed([plan] * 20)` releases all twenty
"""

import math
import sys

import numpy as np
from scipy import optimize

from noisy_sgd import checks
from noisy_sgd.privacy import accounting, truncation
from noisy_sgd.privacy import plan as plans

# The parameter eta of the truncated negative binomial distribution, by the distribution's name.
SHAPES = {"geometric": 1.0, "logarithmic": 0.0, "poisson": math.inf}
DISTRIBUTIONS = (*SHAPES, "negative_binomial")


def best_of(plan: plans.Plan, mean_tries: float, distribution: str, *, shape: float | None = None) -> float:
    """Epsilon of the best of a random number of tries, at the plan's delta.

    Args:
        plan: one try, of any hyper-parameters that the search may choose.
        mean_tries: E[K], at least 1.
        distribution: of K, "geometric", "logarithmic", "negative_binomial" or "poisson".
        shape: eta of "negative_binomial", above -1; the nearer to -1, the smaller epsilon and the less certain K.
            Defaults to None.

    Returns:
        An upper bound by RDP, whatever the plan's accountant; infinity where there is no guarantee.

    Raises:
        ValueError: for an argument out of its range.
    """
    mean_tries = checks.real("mean_tries", mean_tries, least=1)
    checks.choice("distribution", distribution, DISTRIBUTIONS)
    if distribution == "negative_binomial":
        if shape is None:
            raise ValueError(
                "`shape` must be given for 'negative_binomial': eta, above -1, such as 0.5. Received: shape=None"
            )
        shape = checks.real("shape", shape, above=-1)
    else:
        checks.require(shape is None, "shape", f"must be left out for {distribution!r}, which has its own", shape)
        shape = SHAPES[distribution]

    def searched(orders: np.ndarray, divergences: np.ndarray) -> np.ndarray:
        return divergences_of_best(orders, divergences, mean_tries, shape)

    event = plan.event_of_run
    return truncation.epsilon_within(
        lambda delta: accounting.epsilon_by_rdp(event, delta, plan.neighbors, searched),
        plan.delta,
        # E[K] times the probability that one try differs from its event bounds that of any try.
        mean_tries * plan.participation.overflow,
    )


def divergences_of_best(orders: np.ndarray, divergences: np.ndarray, mean_tries: float, shape: float) -> np.ndarray:
    """The Renyi divergences of the best of a random number of tries, from those of one try.

    Args:
        orders: a, all above 1.
        divergences: e(a), at least 0.
        mean_tries: E[K], at least 1.
        shape: eta, above -1; infinity for a Poisson distributed K.
    """
    if shape == math.inf:
        added = mean_tries * _chances(orders, divergences, np.log1p(1 / (orders - 1)))
    else:
        log_halting = math.log(halting_probability(mean_tries, shape))
        # The order b = 1 has no divergence in its term.
        terms = np.append((1 - 1 / orders) * divergences - log_halting / orders, -log_halting)
        added = (1 + shape) * np.min(terms)
    return divergences + added + math.log(mean_tries) / (orders - 1)


def _chances(orders: np.ndarray, divergences: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The smallest delta at each of several epsilons (Canonne, Kamath & Steinke 2020, Proposition 12)."""
    exponents = (orders - 1) * (divergences - losses[:, None] + np.log1p(-1 / orders)) - np.log(orders)
    return np.exp(np.minimum(exponents.min(axis=1), 0))


def halting_probability(mean_tries: float, shape: float) -> float:
    """gamma of the truncated negative binomial distribution with this mean, rounded down.

    A smaller gamma gives a larger bound. The mean is eta (1 / gamma - 1) / (1 - gamma^eta), and for eta = 0 it is
    (1 / gamma - 1) / log(1 / gamma).

    Args:
        mean_tries: E[K], at least 1.
        shape: eta, above -1 and finite.
    """
    if mean_tries == 1:
        return 1.0

    def log_mean(odds: float) -> float:
        # In log(1 / gamma), which does not underflow. expm1(x) / x is 1 at 0.
        def relative(x: float) -> float:
            return math.expm1(x) / x if x else 1.0

        return math.log(relative(odds) / relative(-shape * odds)) if odds < 700 else math.inf

    target = math.log(mean_tries)
    if log_mean(700) < target:
        return sys.float_info.min
    found = optimize.brentq(lambda odds: log_mean(odds) - target, 0.0, 700.0, xtol=1e-13, rtol=1e-13)
    return math.exp(-found * (1 + 1e-9) - 1e-12)
