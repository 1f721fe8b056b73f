"""How long do SGD and Adam stay in a sharp well? Two wells of equal depth, and gradient noise with heavy tails.

Zhou, Feng, Ma, Xiong, Hoi and E (2020, arXiv 2010.05627) explain the better test accuracy of SGD by its escapes: under
heavy-tailed gradient noise Adam stays longer in a sharp minimum, because it averages and normalizes the jumps. Here the
loss of one weight is min(w^2, (w - c)^2 / ratio) / 2 with its top at `WIDTH`, the sharp well at 0 and a well that is
`ratio` times flatter behind the top. The gradient has symmetric alpha-stable noise.

    line = measure({"data_seed": 0, "tail": 1.5, "num_runs": 200, "num_steps": 10_000})
    line["rates"]["sgd"], line["rates"]["adam"]      # escapes per step
    summary([line])

What is equal: the contraction per step. Adam's learning rate is SGD's times the median of its denominator sqrt(v) under
the noise alone, so that in the median both move toward the minimum by the same fraction. Arms at half and at twice this
rate, and SGD with Adam's averaging of gradients (`momentum`), show what the comparison depends on. Times are the
inverse of rates, which are escapes over steps spent in the well: runs that never left are counted.

Rules, written before the final run, each with a 95 % interval of Student's t over 16 problems: the mean log ratio of
Adam's escaping time to SGD's is above 0 at the tail index 1.5; so is that to SGD with Adam's averaging, which tells
normalization from averaging; and the first is larger at the tail index 1.5 than at 2, Gaussian noise.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.signal

from noisy_sgd import keys, statistics

Line = dict[str, Any]
Lines = list[Line]

TAILS = (1.5, 2.0)
WIDTH, STEP_SIZE = 1.0, 0.05
# Factors of Adam's learning rate, by arm.
ADAM = {"adam_half": 0.5, "adam": 1.0, "adam_double": 2.0}
ARMS = ("sgd", "momentum", *ADAM)
# Keras' defaults.
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-7
# Scales of the noise at which SGD escapes within some thousand steps, by tail index.
_SCALES = {1.5: (0.4, 0.8), 2.0: (1.5, 1.9)}
_RATIOS = (2.0, 8.0)


def measure(case: Mapping[str, float]) -> Line:
    """One problem under one kind of noise: how often each arm leaves the sharp well.

    Args:
        case: `data_seed` of the problem and the noise; `tail`, one of `TAILS`; `num_runs` of each arm; `num_steps`.

    Returns:
        A line: the problem's `ratio` of curvatures and noise `scale`; Adam's `learning_rate`; by arm `rates`, escapes
        per step in the well (with half an escape added, so that none has a logarithm), and `escaped`, the runs that
        left it.
    """
    generator = keys.stream(keys.derive(case["data_seed"], "synthetic data"), round(10 * case["tail"]))
    low, high = _SCALES[case["tail"]]
    scale, ratio = np.exp(generator.uniform(np.log((low, _RATIOS[0])), np.log((high, _RATIOS[1])))).tolist()
    learning_rate = STEP_SIZE * scale * typical_denominator(case["tail"])
    noise = keys.stream(keys.derive(case["data_seed"], "noise"), round(10 * case["tail"]))
    draws = scale * stable(case["tail"], (case["num_steps"], case["num_runs"]), noise)
    rates, escaped = {}, {}
    for arm in ARMS:
        times = escapes(arm, ratio, draws, learning_rate=learning_rate * ADAM.get(arm, 1.0))
        left = int(np.sum(times >= 0))
        spent = np.where(times >= 0, times, case["num_steps"]).sum()
        rates[arm], escaped[arm] = float((left + 0.5) / spent), left
    return {
        "ratio": ratio,
        "scale": scale,
        "learning_rate": learning_rate,
        "rates": rates,
        "escaped": escaped,
    }


def summary(lines: Lines) -> Lines:
    """Per tail index: log ratios of each arm's escaping time to SGD's, and of Adam's to that of SGD with momentum.

    Args:
        lines: of `measure`.

    Returns:
        Lines: tail index, the two `arms` compared, mean log ratio over problems with its 95 % interval, problems; and
        one line with `tail` None: the difference of Adam against SGD between the heavy tail and Gaussian noise.
    """
    found = []
    pairs = [(arm, "sgd") for arm in ARMS[1:]] + [("adam", "momentum")]
    ratios = {
        (tail, *pair): np.array([_log_ratio(line, *pair) for line in lines if line["tail"] == tail])
        for tail in TAILS
        for pair in pairs
    }
    for (tail, arm, other), values in ratios.items():
        found.append({"tail": tail, "arms": [arm, other], **_interval(values)})
    heavy, light = (ratios[tail, "adam", "sgd"] for tail in TAILS)
    return [*found, {"tail": None, "arms": ["adam", "sgd"], **_interval(heavy - light)}]


def escapes(arm: str, ratio: float, noise: np.ndarray, *, learning_rate: float) -> np.ndarray:
    """The step after which each run is beyond the top for the first time; -1 for none.

    Args:
        arm: one of `ARMS`.
        ratio: of the curvatures, which are 1 and 1 / ratio.
        noise: of the gradient, [steps, runs].
        learning_rate: Adam's; the others have `STEP_SIZE`.

    Returns:
        Array [runs] of integers.
    """
    center = WIDTH * (1 + np.sqrt(ratio))
    weight, first, second = np.zeros((3, noise.shape[1]))
    found = np.full(noise.shape[1], -1)
    for step, drawn in enumerate(noise, start=1):
        gradient = np.where(weight < WIDTH, weight, (weight - center) / ratio) + drawn
        if arm == "sgd":
            weight = weight - STEP_SIZE * gradient
        else:
            first = _FIRST * first + (1 - _FIRST) * gradient
            if arm == "momentum":
                weight = weight - STEP_SIZE * first
            else:
                second = _SECOND * second + (1 - _SECOND) * gradient**2
                mean, square = first / (1 - _FIRST**step), second / (1 - _SECOND**step)
                weight = weight - learning_rate * mean / (np.sqrt(square) + _EPSILON)
        found[(weight > WIDTH) & (found < 0)] = step
    return found


def stable(tail: float, shape: tuple[int, ...], generator: "np.random.Generator") -> np.ndarray:
    """Symmetric alpha-stable draws with characteristic function exp(-|t|^tail); of variance 2 at tail index 2."""
    # Chambers, Mallows and Stuck (1976). SciPy's `levy_stable.rvs` has the same law and takes fifteen times as long.
    angle, size = generator.uniform(-np.pi / 2, np.pi / 2, shape), generator.exponential(size=shape)
    power = (np.cos((1 - tail) * angle) / size) ** ((1 - tail) / tail)
    return np.sin(tail * angle) / np.cos(angle) ** (1 / tail) * power


@functools.cache
def typical_denominator(tail: float) -> float:
    """The median over time of Adam's sqrt(v) under the noise alone, at scale 1."""
    # The average has forgotten its start after some thousand steps.
    start, num_steps, between = 5_000, 20_000, 50
    squares = stable(tail, (num_steps, 200), keys.arbitrary(round(10 * tail))) ** 2
    averages = scipy.signal.lfilter([1 - _SECOND], [1, -_SECOND], squares, axis=0)
    return float(np.median(np.sqrt(averages[start::between])))


def _log_ratio(line, arm, other):
    """Of times, which are inverse rates."""
    return np.log(line["rates"][other]) - np.log(line["rates"][arm])


def _interval(values):
    found = statistics.estimate(values)
    return {"mean": found.mean, "low": found.low, "high": found.high, "problems": found.count}
