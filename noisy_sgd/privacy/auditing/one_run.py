"""Auditing with one training run (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, Theorem 5.2).

Each of m canaries is in the data by a fair coin. An attacker who sees the result guesses r of the coins and abstains
from the others. If the training is (epsilon, delta)-DP for the addition or removal of one example, then

    P(at least v of the r guesses are right) <= beta + 2 m delta alpha
    beta = P(W >= v),   alpha = max over i in 1, ..., v of P(v > W >= v - i) / i

where W is Binomial(r, 1 / (1 + e^-epsilon)).

The coins have a key of their own, and r is fixed before the run. With r guesses, all of them right, the bound cannot
exceed `largest_bound`: a claim above that cannot be refuted with so few guesses.

    included = one_run.coins(1000, keys.secret())              # train on the canaries that are included
    guessed = one_run.guesses(scores, num_guesses=200)         # a high score says that the canary is in
    correct = one_run.num_correct(guessed, included)
    one_run.epsilon_lower_bound(1000, 200, correct, delta=1e-5)

>>> round(epsilon_lower_bound(100, 100, 100, delta=0.0, confidence=0.95), 2)
3.49
"""

import math

import numpy as np
from scipy import optimize, special, stats

from noisy_sgd import checks, keys

CONFIDENCE = 0.9999

# The p-value need not rise everywhere with epsilon, so its first crossing is bracketed in steps of this size.
_STEP = 0.1
_LARGEST_EPSILON = 50.0


def coins(num_canaries: int, seed: int | bytes) -> np.ndarray:
    """Which canaries are included, bool [num_canaries]: fair coins of a key that is used for nothing else.

    Args:
        num_canaries: m, number of canaries.
        seed: a secret of `keys.secret()`; an integer is for tests.
    """
    num_canaries = checks.count("num_canaries", num_canaries)
    return keys.counter_stream(keys.derive(seed, "canaries")).random(num_canaries) < 0.5


def guesses(scores: np.ndarray, num_guesses: int) -> np.ndarray:
    """The guesses: 1 (in) for the half of `num_guesses` with the highest scores, -1 (out) for the lowest, 0 elsewhere.

    Args:
        scores: [m], higher where the canary seems to be included; finite.
        num_guesses: r, fixed before the run; even, and at most m.

    Returns:
        int [m].

    Raises:
        ValueError: for scores that are not finite, or a number of guesses out of its range.
    """
    scores = np.asarray(scores, dtype=np.float64)
    checks.require(bool(np.isfinite(scores).all()), "scores", "must be finite", scores)
    constraint = f"must be even, and at most the {len(scores)} canaries"
    num_guesses = checks.count("num_guesses", num_guesses, least=2)
    checks.require(num_guesses % 2 == 0 and num_guesses <= len(scores), "num_guesses", constraint, num_guesses)
    # Equal scores keep the order of the canaries, which says nothing about the coins.
    order = np.argsort(scores, kind="stable")
    guessed = np.zeros(len(scores), dtype=int)
    guessed[order[: num_guesses // 2]] = -1
    guessed[order[-(num_guesses // 2) :]] = 1
    return guessed


def num_correct(guessed: np.ndarray, included: np.ndarray) -> int:
    """v, how many guesses are right.

    Args:
        guessed: [m], from `guesses`.
        included: bool [m], from `coins`.
    """
    return int(np.sum(np.asarray(guessed) == np.where(included, 1, -1)))


def p_value(num_canaries: int, num_guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of so many right guesses under (epsilon, delta)-DP; Theorem 5.2, at most 1.

    Args:
        num_canaries: m.
        num_guesses: r, without abstentions.
        correct: v, right guesses.
        epsilon: of the claim, at least 0.
        delta: of the claim, in [0, 1).

    Raises:
        ValueError: unless 0 <= v <= r <= m, or for a claim out of its range.
    """
    _check_counts(num_canaries, num_guesses, correct, delta)
    return _p_value(num_canaries, num_guesses, correct, checks.real("epsilon", epsilon, least=0), delta)


def epsilon_lower_bound(
    num_canaries: int, num_guesses: int, correct: int, delta: float, *, confidence: float = CONFIDENCE
) -> float:
    """The largest epsilon that the guesses refute: with this confidence, the training is not (epsilon, delta)-DP.

    Args:
        num_canaries: as in `p_value`, like the next three.
        confidence: the bound is too high with a probability of at most 1 - confidence. Defaults to 0.9999.

    Returns:
        Epsilon, 0 where nothing is refuted.

    Raises:
        ValueError: as in `p_value`.
    """
    _check_counts(num_canaries, num_guesses, correct, delta)
    allowed = 1 - checks.real("confidence", confidence, above=0, below=1)

    def margin(epsilon):
        return _p_value(num_canaries, num_guesses, correct, epsilon, delta) - allowed

    low = 0.0
    if margin(low) >= 0:
        return 0.0
    while margin(low + _STEP) < 0:
        low += _STEP
        if low > _LARGEST_EPSILON:
            return low
    return optimize.brentq(margin, low, low + _STEP, xtol=1e-9) - 1e-9


def largest_bound(num_canaries: int, num_guesses: int, delta: float, *, confidence: float = CONFIDENCE) -> float:
    """The provable maximum: the bound if all guesses are right. A larger epsilon cannot be refuted.

    For delta = 0 it is log(p / (1 - p)) with p = (1 - confidence)^(1 / num_guesses).
    """
    return epsilon_lower_bound(num_canaries, num_guesses, num_guesses, delta, confidence=confidence)


def guesses_needed(epsilon: float, *, confidence: float = CONFIDENCE) -> int:
    """The fewest guesses whose provable maximum at delta = 0 exceeds an epsilon; delta makes it a little more."""
    epsilon = checks.real("epsilon", epsilon, above=0)
    allowed = 1 - checks.real("confidence", confidence, above=0, below=1)
    return math.floor(math.log(allowed) / -np.log1p(np.exp(-epsilon))) + 1


def _p_value(num_canaries, num_guesses, correct, epsilon, delta):
    probability = special.expit(epsilon)
    beta = stats.binom.sf(correct - 1, num_guesses, probability)
    alpha = 0.0
    if delta and correct:
        masses = stats.binom.pmf(np.arange(correct - 1, -1, -1), num_guesses, probability)
        alpha = float(np.max(np.cumsum(masses) / np.arange(1, correct + 1)))
    return min(1.0, float(beta) + 2 * num_canaries * delta * alpha)


def _check_counts(num_canaries, num_guesses, correct, delta):
    checks.count("num_canaries", num_canaries)
    checks.count("num_guesses", num_guesses)
    checks.count("correct", correct, least=0)
    checks.require(num_guesses <= num_canaries, "num_guesses", f"must be at most {num_canaries}", num_guesses)
    checks.require(correct <= num_guesses, "correct", f"must be at most {num_guesses}", correct)
    checks.real("delta", delta, least=0, below=1)
