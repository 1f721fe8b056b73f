"""Checks of a private training: each returns what it finds, one sentence each, and nothing for a correct one.

findings.of_sensitivity(private)     does one example move the released sum by more than its bound?
findings.of_law(noise, stddev)       is the noise normal, and of the stated size?
findings.of_independence(noise)      is it independent from step to step, and within a step?
findings.of_keys(use)                has every purpose its own key?
findings.of_draws(scheme)            are the batches drawn as the accountant assumes?
"""

from unittest import mock

import numpy as np
from scipy import stats

from noisy_sgd import keys
from tests.attacks import training

# What an adversary may put in the place of an example; the last is a copy of another example.
EXTREMES = {
    "far away": 1e4,
    "overflowing": 3e38,
    "vanishing": 1e-38,
    "zero": 0.0,
    "not a number": np.nan,
    "infinite": np.inf,
    "a copy": None,
}
_ROUNDING = 1e-5
_RARE = 1e-7


def of_sensitivity(private, extremes=tuple(EXTREMES)):
    """Neighbors whose released sums lie further apart than C (one example removed or added) or 2 C (replaced).

    Args:
        private: a `training.Training` without noise.
        extremes: names of `EXTREMES`.
    """
    x, y = training.data()
    found = []
    whole, removed = private.updates(x, y)[0], private.updates(x[:-1], y[:-1])[0]
    pairs = [("the last example removed", whole, removed, 1)]
    for name in extremes:
        value = EXTREMES[name]
        replaced = x.copy()
        replaced[-1] = x[0] if value is None else value * np.sign(x[0])
        other = private.updates(replaced, y)[0]
        pairs += [(f"an example added, {name}", removed, other, 1), (f"an example replaced, {name}", whole, other, 2)]
    for name, one, other, clips in pairs:
        moved = np.linalg.norm(one - other)
        if not moved <= clips * training.CLIP * (1 + _ROUNDING):
            found.append(f"{name}: the sum moves by {moved:.4g}, the bound is {clips * training.CLIP:g}")
    return found


def of_law(noise, stddev):
    """Noise that is not normal, or not of the stated size.

    Args:
        noise: [steps, d].
        stddev: the stated standard deviation.
    """
    found = []
    # Step by step: noise that is used twice is no evidence on its law.
    for index, values in enumerate(noise):
        size = np.sqrt(np.mean(values**2)) / stddev
        # The standard deviation of `size` is 1 / sqrt(2 d).
        if abs(size - 1) > 6 / np.sqrt(2 * values.size):
            found.append(f"the noise of step {index} has {size:.3f} times its stated size")
        elif stats.kstest(values / stddev, stats.norm.cdf).pvalue < _RARE:
            found.append(f"the noise of step {index} is not normal")
    return found


def of_independence(noise):
    """Steps whose noise is correlated, and halves of one step's noise that are.

    Args:
        noise: [steps, d].
    """
    found, half = [], noise.shape[1] // 2
    pairs = [(f"steps {i} and {j}", noise[i], noise[j]) for j in range(len(noise)) for i in range(j)]
    pairs += [(f"halves of step {i}", step[:half], step[half : 2 * half]) for i, step in enumerate(noise)]
    for name, one, other in pairs:
        if np.std(one) and np.std(other) and stats.pearsonr(one, other).pvalue < _RARE:
            found.append(f"{name} have correlated noise")
    return found


def of_keys(use):
    """Purposes that share a key.

    Args:
        use: called without arguments; whatever keys it derives are looked at.
    """
    derived, found = {}, []
    original = keys.derive

    def recorded(seed, purpose):
        key = original(seed, purpose)
        derived.setdefault(key, set()).add(purpose)
        return key

    with mock.patch.object(keys, "derive", recorded):
        use()
    if len(set().union(*derived.values())) < 2:
        found.append("fewer than two purposes were seen")
    return found + [f"one key for {', '.join(sorted(purposes))}" for purposes in derived.values() if len(purposes) > 1]


def of_draws(scheme, num_steps=1500):
    """How the batches of a Poisson scheme differ from what the accountant is told.

    Args:
        scheme: with a seed and a probability of participation.
        num_steps: how many batches to draw.
    """
    probability, found = scheme.participation(num_steps).probability, []
    sizes = np.array([scheme.size(step) for step in range(num_steps)])
    counts = np.bincount(
        np.concatenate([scheme.indices(step) for step in range(num_steps)]), minlength=scheme.num_examples
    )
    for name, values, trials in (("sizes", sizes, scheme.num_examples), ("participations", counts, num_steps)):
        variance = trials * probability * (1 - probability)
        # The sum of squares over the variance is close to chi-squared, its degrees of freedom the number of values.
        spread = stats.chi2(len(values)).cdf(np.sum((values - trials * probability) ** 2) / variance)
        if not _RARE < spread < 1 - _RARE:
            found.append(f"the {name} have {np.var(values) / variance:.3f} times the variance of independent draws")
    return found
