"""The loss landscape along training: the Hessian's top eigenvalue, and the spectrum of the gradients' covariance.

"The break-even point" (Jastrzebski et al. 2020, arXiv 2002.09572) says that a larger learning rate, or a smaller batch,
leads training through weights where gradients vary less: the largest eigenvalue of their covariance K is smaller, and
K is better conditioned, when runs are compared at the same training accuracy. Six groups of runs are measured:

    B = 64        learning rate 0.3 and 0.03, without noise
    B = 16, 256   learning rate 0.1, without noise, and with noise of standard deviation 0.006 on the mean gradient

Each run is measured at five steps, and when it first fits `TARGET_ACCURACY` of its training set.

    line = cases(dataset="digits", network="mlp", num_train_examples=200, num_steps=50, num_seeds=1)[0]
    measure(line)["points"][-1]["hessian_top"]

Rules, written before the final run: each row of `ROWS` is judged by `studies.verdicts` on paired differences over seeds
of logarithms at the target accuracy, the second group's minus the first group's. A seed that does not reach the target
in one of the two groups is left out, and at least five have to remain.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from noisy_sgd.optimizers import sgd
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import cases as laboratory_cases
from noisy_sgd.studies.laboratory import derivatives, training

TARGET_ACCURACY = 0.95
NOISE_STD = 0.006
# (batch size, learning rate, standard deviation of the noise).
FAST, SLOW = (64, 0.3, 0.0), (64, 0.03, 0.0)
SMALL, SMALL_NOISY = (16, 0.1, 0.0), (16, 0.1, NOISE_STD)
LARGE, LARGE_NOISY = (256, 0.1, 0.0), (256, 0.1, NOISE_STD)
GROUPS = (FAST, SLOW, SMALL, SMALL_NOISY, LARGE, LARGE_NOISY)

# Row -> the two groups, and what is smaller in the first group.
ROWS = {
    "break_even": (FAST, SLOW, ("covariance_top", "conditioning")),
    "hessian_by_learning_rate": (FAST, SLOW, ("hessian_top",)),
    "covariance_by_batch_size": (SMALL, LARGE, ("covariance_top",)),
    "hessian_by_noise": (LARGE_NOISY, LARGE, ("hessian_top",)),
}
LEAST_SEEDS = 5

# The training accuracy is looked at after every so many steps.
_STRIDE = 5
_GRADIENTS = 500
# What a diverged run has no value of.
_DIVERGED = ("train_loss", "test_accuracy", "hessian_top", "covariance_trace", "covariance_top", "covariance_tenth")
_MEASURED_AT = (0.0, 0.01, 0.05, 0.25, 1.0)


def cases(*, num_seeds: int, **common: Any) -> list[dict[str, Any]]:
    """All cases; neighbors share a compiled step.

    Args:
        num_seeds: of each group.
        **common: dataset, network, num_train_examples and num_steps.
    """
    return [
        {**common, "batch_size": size, "learning_rate": rate, "noise_std": noise, "seed": seed}
        for size, rate, noise in GROUPS
        for seed in range(num_seeds)
    ]


def measure(case: Mapping[str, Any], data_dir: str | None = None) -> dict[str, Any]:
    """Trains one run, and looks at the landscape of its training loss.

    Returns:
        `points`, each with `step`, `at_target` (whether it is the point of the target accuracy), `train_loss`,
        `train_accuracy`, `test_accuracy`, `hessian_top`, and of the gradients' covariance `covariance_trace`,
        `covariance_top` and `covariance_tenth`, its first and tenth eigenvalue. NaN after a run has diverged.
    """
    data = laboratory_cases.load(case, data_dir)
    common = tuple((name, case[name]) for name in ("dataset", "network", "num_train_examples"))
    trainer, compiled = _trainer(common, case["batch_size"], data_dir), _derivatives(common, data_dir)
    train = data.train
    trainer.start(train.images, train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.model.optimizer.noise_std.assign(case["noise_std"])
    ends = sorted({round(share * case["num_steps"]) for share in _MEASURED_AT})
    points, reached = [], False
    for end in ends:
        while not reached and trainer.step < end:
            trainer.advance(min(_STRIDE, end - trainer.step))
            reached = trainer.evaluate(train.images, train.labels).accuracy >= TARGET_ACCURACY
            if reached:
                points.append({"at_target": True, **_point(trainer, compiled, data)})
        trainer.advance(end - trainer.step)
        points.append({"at_target": False, **_point(trainer, compiled, data)})
    return {"points": points}


def rows(lines: Sequence[Mapping[str, Any]]) -> list[verdicts.Row]:
    """The rows of `ROWS`."""
    found = {(_group(line), line["seed"]): point for line in lines for point in line["points"] if point["at_target"]}
    made = []
    for name, (first, second, quantities) in ROWS.items():
        pairs = [
            (found[first, seed], found[second, seed])
            for seed in sorted({line["seed"] for line in lines})
            if {(first, seed), (second, seed)} <= set(found)
        ]
        if len(pairs) < LEAST_SEEDS:
            pairs = []
        parts = {
            quantity: [_logarithm(two, quantity) - _logarithm(one, quantity) for one, two in pairs] or [None]
            for quantity in quantities
        }
        made.append(verdicts.Row(name, parts))
    return made


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a record: its judged `rows`."""
    return {"rows": verdicts.judge(rows(lines))}


def _logarithm(point, quantity):
    if quantity == "conditioning":
        return math.log(point["covariance_top"] / point["covariance_tenth"])
    return math.log(point[quantity])


def _group(line):
    return line["batch_size"], line["learning_rate"], line["noise_std"]


@functools.lru_cache(maxsize=1)
def _trainer(common, batch_size, data_dir):
    build = laboratory_cases.builder({**dict(common), "seed": 0}, data_dir)
    return training.Trainer(build, sgd.NoisySGD(1.0, 0.0, seed=0), batch_size=batch_size)


@functools.lru_cache(maxsize=1)
def _derivatives(common, data_dir):
    # Of a model of its own, so that another batch size does not compile them again.
    return derivatives.Derivatives(_trainer.__wrapped__(common, 1, data_dir).model)


def _point(trainer, compiled, data):
    train = data.train
    compiled.assign(trainer.weights)
    fit = trainer.evaluate(train.images, train.labels)
    if not math.isfinite(fit.loss):
        return {"step": trainer.step, "train_accuracy": fit.accuracy, **dict.fromkeys(_DIVERGED, math.nan)}
    spectrum = derivatives.covariance(compiled.gradients(train.images[:_GRADIENTS], train.labels[:_GRADIENTS]))
    return {
        "step": trainer.step,
        "train_loss": fit.loss,
        "train_accuracy": fit.accuracy,
        "test_accuracy": trainer.evaluate(data.judged.images, data.judged.labels).accuracy,
        "hessian_top": compiled.top_of_hessian(train.images, train.labels),
        "covariance_trace": spectrum.trace,
        "covariance_top": spectrum.top,
        "covariance_tenth": spectrum.largest[-1],
    }
