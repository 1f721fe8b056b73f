"""The best learning rates of DP-SGD, DP-SignSGD and DP-Adam against the noise.

"Adaptive methods are preferable in high privacy settings: an SDE perspective" (arXiv 2603.03226) derives from
stochastic differential equations that the best learning rate of DP-SGD is in proportion to epsilon, and that of
DP-SignSGD and DP-Adam hardly depends on it. Clip, batches and steps are fixed here, so that only the noise multiplier
sigma changes epsilon. Every seed measures the accuracy of each optimizer over a grid of learning rates for each sigma.
Its best learning rate is the top of the parabola in log2(learning rate) through the highest accuracy and its two
neighbors. Its slope is that of log2(best learning rate) against log2(sigma), by least squares.

    lines = [{**case, **measure(case)} for case in cases(dataset="digits", network="mlp", num_train_examples=200,
                                                         num_steps=20, num_seeds=2,
                                                         noise_doublings=1)]
    slopes(lines)["dp_sgd"]

Rules, written before the final run: three rows, judged by `studies.verdicts` on the slopes of the seeds. DP-SGD's mean
slope is below -0.5; those of DP-SignSGD and DP-Adam are between -0.25 and 0.25.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import privacy, statistics
from noisy_sgd.optimizers import adam, sgd
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import cases as laboratory_cases
from noisy_sgd.studies.laboratory import sign_descent, training

BATCH_SIZE = 64
L2_NORM_CLIP = 1.0
OPTIMIZERS = {"dp_sgd": sgd.DPSGD, "dp_sign_sgd": sign_descent.DPSignSGD, "dp_adam": adam.DPAdam}
# Powers of 2 of each grid's learning rates.
POWERS = {"dp_sgd": range(-6, 2), "dp_sign_sgd": range(-13, -5), "dp_adam": range(-12, -4)}

STEEP, FLAT = -0.5, 0.25


def cases(*, num_seeds: int, noise_doublings: int, **common: Any) -> list[dict[str, Any]]:
    """All cases; neighbors share a compiled step.

    Args:
        num_seeds: of every case.
        noise_doublings: sigma is 1 and the next so many powers of 2.
        **common: dataset, network, num_train_examples and num_steps.
    """
    return [
        {**common, "optimizer": name, "noise_multiplier": noise, "learning_rate": 2.0**power, "seed": seed}
        for name in OPTIMIZERS
        for noise in (2.0**power for power in range(noise_doublings + 1))
        for power in POWERS[name]
        for seed in range(num_seeds)
    ]


def measure(case: Mapping[str, Any], data_dir: str | None = None) -> dict[str, float]:
    """Trains one run; returns its `accuracy` on the examples for judging."""
    data = laboratory_cases.load(case, data_dir)
    common = ("dataset", "network", "num_train_examples", "optimizer", "noise_multiplier")
    trainer = _trainer(tuple((name, case[name]) for name in common), data_dir)
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.advance(case["num_steps"])
    return {"accuracy": trainer.evaluate(data.judged.images, data.judged.labels).accuracy}


def best_rate(rates: Sequence[float], accuracies: Sequence[float]) -> float:
    """The top of the parabola through the highest accuracy and its two neighbors; at the grid's end, that end.

    Args:
        rates: learning rates, each twice the one before.
        accuracies: one per learning rate.
    """
    top = int(np.argmax(accuracies))
    if top in (0, len(rates) - 1):
        return rates[top]
    before, here, after = accuracies[top - 1 : top + 2]
    curvature = before - 2 * here + after
    return rates[top] * 2 ** (0.5 * (before - after) / curvature if curvature else 0.0)


def best_rates(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, dict[float, float]]]:
    """The best learning rates: optimizer -> seed -> noise multiplier -> rate."""
    found: dict[str, dict[int, dict[float, float]]] = {}
    grouped: dict[tuple[str, int, float], dict[float, float]] = {}
    for line in lines:
        group = (line["optimizer"], line["seed"], line["noise_multiplier"])
        grouped.setdefault(group, {})[line["learning_rate"]] = line["accuracy"]
    for (name, seed, noise), by_rate in grouped.items():
        rates = sorted(by_rate)
        best = best_rate(rates, [by_rate[rate] for rate in rates])
        found.setdefault(name, {}).setdefault(seed, {})[noise] = best
    return found


def slopes(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Slope of log2(best learning rate) against log2(noise multiplier), one per seed, by optimizer."""
    return {
        name: [
            float(np.polyfit(np.log2(list(by_noise)), np.log2(list(by_noise.values())), 1)[0])
            for by_noise in by_seed.values()
        ]
        for name, by_seed in best_rates(lines).items()
    }


def rows(lines: Sequence[Mapping[str, Any]]) -> list[verdicts.Row]:
    """The three rows."""
    found = slopes(lines)
    steep = verdicts.Row("dp_sgd", {f"{STEEP:g} - slope": [STEEP - slope for slope in found["dp_sgd"]]})
    flat = [verdicts.Row(name, verdicts.equal(found[name], FLAT, "slope")) for name in ("dp_sign_sgd", "dp_adam")]
    return [steep, *flat]


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a record: its judged `rows`, `best_rates`, `slopes` with intervals, and `epsilons` of the noise.

    Epsilon is that of shuffled batches, at delta = 1 / (10 N).
    """
    estimates = {name: statistics.estimate(values) for name, values in slopes(lines).items()}
    examples, steps = lines[0]["num_train_examples"], lines[0]["num_steps"]
    batch_size = min(BATCH_SIZE, examples)
    return {
        "rows": verdicts.judge(rows(lines)),
        "slopes": {
            name: {"mean": one.mean, "low": one.low, "high": one.high, "count": one.count}
            for name, one in estimates.items()
        },
        "best_rates": [
            {"optimizer": name, "seed": seed, "noise_multiplier": noise, "best_rate": rate}
            for name, by_seed in best_rates(lines).items()
            for seed, by_noise in by_seed.items()
            for noise, rate in by_noise.items()
        ],
        "epsilons": [
            {
                "noise_multiplier": noise,
                "epsilon": privacy.epsilon(noise, batch_size, examples, steps, 0.1 / examples, sampling="shuffled"),
            }
            for noise in sorted({line["noise_multiplier"] for line in lines})
        ],
    }


@functools.lru_cache(maxsize=1)
def _trainer(fields, data_dir):
    case = dict(fields)
    build = laboratory_cases.builder({**case, "seed": 0}, data_dir)
    batch_size = min(BATCH_SIZE, case["num_train_examples"])
    optimizer = OPTIMIZERS[case["optimizer"]](1.0, L2_NORM_CLIP, case["noise_multiplier"], batch_size, seed=0)
    return training.Trainer(build, optimizer, batch_size=batch_size)
