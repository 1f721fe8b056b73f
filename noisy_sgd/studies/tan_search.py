"""TAN's search: settings of a private run with large batches, chosen by cheap runs with small ones.

Sander et al., "TAN without a burn" (arXiv 2210.03403): at equal steps and equal sigma / B, a run with small batches
behaves almost like the private run, and costs B_small / B of it. The small runs choose the learning rate, and only one
run pays for the large batch. How far the small runs predict the private one is measured here: the rule, written
before the final runs, is that the mean accuracies differ by less than one point (two one-sided tests over the seeds).

What it does not save is privacy. The small runs use the same examples with a noise multiplier of sigma B_small / B,
whose epsilon is far larger. A search on private data counts in full (`noisy_sgd.privacy.composed`, or
`noisy_sgd.privacy.selection`); the printed epsilon is that of the private run alone, and it is the whole cost only if
the search ran on public data of the same kind.

    setting = Setting(dataset="digits", batch_size=512, small_batch_size=64)
    noise_multiplier(setting)          # of the private run, for its epsilon

Covered by tests/experiments/tan_search_test.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import checks, privacy, sampling
from noisy_sgd.privacy import tan
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import images, settings, tuning

# Points of accuracy.
MARGIN = 1.0

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Tuned):
    """The private run to plan, and the runs that choose its learning rate; beside the images.

    Attributes:
        hidden: units of the hidden layer of the perceptron.
        batch_size: B of the private run.
        small_batch_size: of the cheap runs.
        num_steps: of every run.
        epsilon: of the private run, with Poisson sampling.
        delta: of the same.
        l2_norm_clip: C.
    """

    num_train_examples: int = 1_000
    hidden: int = 128
    batch_size: int = 512
    small_batch_size: int = 64
    num_steps: int = 300
    epsilon: float = 8.0
    delta: float = 1e-5
    l2_norm_clip: float = 1.0
    learning_rates: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

    def __post_init__(self):
        super().__post_init__()
        checks.batch(self.batch_size, self.num_train_examples)
        smaller = 1 <= self.small_batch_size < self.batch_size
        checks.require(smaller, "small_batch_size", "must be at least 1 and below `batch_size`", self.small_batch_size)
        for name in ("hidden", "num_steps"):
            checks.count(name, getattr(self, name))
        for name in ("epsilon", "l2_norm_clip"):
            checks.real(name, getattr(self, name), above=0)
        checks.real("delta", self.delta, above=0, below=1)


def stages(setting: Setting) -> list[Callable[[Sequence[Line]], list[dict[str, Any]]]]:
    """From the lines of the earlier stages to the cases of the next: the search, then the chosen rate at both sizes."""

    def search(lines):
        return tuning.cases(setting, [{"batch_size": setting.small_batch_size}])

    def final(lines):
        return [
            {"stage": tuning.FINAL, "batch_size": size, "learning_rate": chosen_rate(setting, lines), "seed": seed}
            for size in (setting.small_batch_size, setting.batch_size)
            for seed in range(setting.num_seeds)
        ]

    return [search, final]


def chosen_rate(setting: Setting, lines: Sequence[Line]) -> float:
    """The learning rate of the highest mean accuracy of the small runs."""
    means = tuning.means(lines, lambda line: line["batch_size"])[setting.small_batch_size]
    return max(setting.learning_rates, key=means.get)


def noise_multiplier(setting: Setting) -> float:
    """Sigma of the private run, the least that its epsilon allows."""
    plan = (setting.batch_size, setting.num_train_examples, setting.num_steps, setting.delta)
    return _noise_multiplier(setting.epsilon, *plan)


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, float]:
    """Trains one run with DP-SGD, and evaluates it on the images for choosing or for judging."""
    # The train binary has the images in full size.
    data = images.of(setting, case["seed"], full_size=True)
    trainer = _trainer(setting, case["batch_size"])
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.advance(setting.num_steps)
    test = data.chosen if case["stage"] == tuning.TUNING else data.judged
    found = trainer.evaluate(test.images, test.labels)
    return {"accuracy": found.accuracy, "loss": found.loss}


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """The private run, its epsilon, the accuracy that the small runs predict, and the judged row."""
    predicted, measured = (
        np.array([line["accuracy"] for line in lines if line["stage"] == tuning.FINAL and line["batch_size"] == size])
        for size in (setting.small_batch_size, setting.batch_size)
    )
    sigma, steps = noise_multiplier(setting), setting.num_steps
    small = tan.scale_to_batch(sigma, setting.batch_size, setting.small_batch_size)
    shared = {"num_examples": setting.num_train_examples, "num_steps": steps, "delta": setting.delta}
    epsilons = [
        privacy.epsilon(noise, size, **shared, sampling="poisson", accountant=accountant)
        # At little noise, the bound by Renyi divergences is fast, and far above anything useful in any case.
        for noise, size, accountant in ((sigma, setting.batch_size, "pld"), (small, setting.small_batch_size, "rdp"))
    ]
    parts = verdicts.equal(100 * (predicted - measured), MARGIN, "(predicted - measured)")
    return {
        "learning_rate": chosen_rate(setting, lines),
        "noise_multiplier": sigma,
        "small_noise_multiplier": small,
        "eta": tan.eta(sigma, setting.batch_size, setting.num_train_examples, steps),
        "epsilon": epsilons[0],
        "epsilon_of_one_small_run": epsilons[1],
        "predicted_accuracy": float(predicted.mean()),
        "measured_accuracy": float(measured.mean()),
        "rows": verdicts.judge([verdicts.Row("prediction", parts)]),
    }


@functools.lru_cache
def _noise_multiplier(epsilon, batch_size, num_examples, num_steps, delta) -> float:
    return privacy.noise_multiplier_for(epsilon, batch_size, num_examples, num_steps, delta, sampling="poisson")


@functools.lru_cache(maxsize=2)
def _trainer(setting: Setting, batch_size: int):
    # Takes seconds to import; a command line is read without it.
    from noisy_sgd.optimizers import sgd
    from noisy_sgd.studies.laboratory import networks, training

    sigma = tan.scale_to_batch(noise_multiplier(setting), setting.batch_size, batch_size)
    return training.Trainer(
        networks.builder("mlp", images.of(setting, 0, full_size=True), width=setting.hidden),
        sgd.DPSGD(1.0, setting.l2_norm_clip, sigma, batch_size, seed=0),
        batch_size=batch_size,
        sampled=sampling.Poisson,
    )
