"""Figure 1, controlled: does accuracy fall with the batch size, and is it the clipping?

Four arms, SGD, noise only, clip only, and DP-SGD, train with the same number of steps and the same noise per step. A
seed draws the training set, the initialization, the order and the noise. Learning rates are chosen on a preset grid, by
other seeds and other test images than those of the final runs, by three rules:

    per_arm       one learning rate for all batch sizes: the paper's protocol, and the main row
    per_size      one for every arm and batch size
    equal         the same for everything, not tuned

    setting = Setting(batch_sizes=(16, 64, 256), num_seeds=5)
    lines = [{**case, **measure(setting, case)} for case in stages(setting)[0]([])]
    learning_rates(setting, lines)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noisy_sgd import checks
from noisy_sgd.studies.laboratory import images, settings, tuning

PER_ARM, PER_SIZE, EQUAL = RULES = ("per_arm", "per_size", "equal")

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Network, settings.Tuned):
    """What is trained, and how often; beside the images, the network and the loss.

    Attributes:
        num_steps: of every run.
        ema_decay: of the weights' average; the accuracies without it are recorded too.
        noise_std: standard deviation of the noise on the mean gradient, sigma / B, of the arms with noise.
        l2_norm_clips: bounds C of the arms with clipping.
        batch_sizes: B.
        equal_learning_rate: that of the rule "equal".
        noise_coefficients: of the draws of the noise, c_0, c_1, ...; its standard deviation is `noise_std` whatever
            they are. Defaults to (1.0,), independent noise.
    """

    num_steps: int = 1_500
    ema_decay: float = 0.98
    noise_std: float = 0.006
    l2_norm_clips: tuple[float, ...] = (1.0, 4.0)
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    equal_learning_rate: float = 0.3
    noise_coefficients: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        super().__post_init__()
        for name in ("l2_norm_clips", "batch_sizes"):
            values = getattr(self, name)
            distinct = len(set(values)) == len(values) > 0 and min(values) > 0
            checks.require(distinct, name, "must list distinct numbers above 0", values)
        checks.require(len(self.batch_sizes) >= 3, "batch_sizes", "must list at least three", self.batch_sizes)
        largest, available = max(self.batch_sizes), self.num_train_examples
        checks.require(largest <= available, "batch_sizes", f"must be at most the {available} examples", largest)
        for name in ("noise_std", "equal_learning_rate"):
            checks.real(name, getattr(self, name), above=0)
        first = self.noise_coefficients[:1]
        checks.require(bool(first) and first[0] > 0, "noise_coefficients", "must begin with a number above 0", first)
        checks.count("num_steps", self.num_steps)
        checks.require(0 < self.ema_decay < 1, "ema_decay", "must lie between 0 and 1", self.ema_decay)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Arm, bound and batch size of the runs that share a compiled step."""
        bounds = {name: self.l2_norm_clips if "clip" in name else (None,) for name in settings.ARMS}
        return [
            {"arm": name, "l2_norm_clip": bound, "batch_size": size}
            for name in settings.ARMS
            for bound in bounds[name]
            for size in self.batch_sizes
        ]


def stages(setting: Setting) -> list[Callable[[Sequence[Line]], list[dict[str, Any]]]]:
    """From the lines of the earlier stages to the cases of the next."""
    return [lambda lines: tuning.cases(setting, setting.groups), lambda lines: final_cases(setting, lines)]


def final_cases(setting: Setting, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The runs that are judged, from the lines of the tuning runs; runs that several rules need are made once."""
    chosen = learning_rates(setting, lines)
    rates: dict[tuple, set[float]] = {}
    for choice in chosen:
        rates.setdefault(_group(choice), set()).add(choice["learning_rate"])
    return [
        {"stage": tuning.FINAL, **group, "learning_rate": rate, "seed": seed}
        for group in setting.groups
        for rate in sorted(rates[_group(group)])
        for seed in range(setting.num_seeds)
    ]


def learning_rates(setting: Setting, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The learning rate of every rule and group: that of the highest mean accuracy of the averaged weights."""
    means = tuning.means(lines, _group, value="ema_accuracy")
    found = []
    for group in setting.groups:
        of_arm = [means[_group(other)] for other in setting.groups if _group(other)[:2] == _group(group)[:2]]
        by_rule = {
            PER_ARM: max(setting.learning_rates, key=lambda rate: sum(one[rate] for one in of_arm)),
            PER_SIZE: max(setting.learning_rates, key=means[_group(group)].get),
            EQUAL: setting.equal_learning_rate,
        }
        found += [{"rule": rule, **group, "learning_rate": rate} for rule, rate in by_rule.items()]
    return found


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, float]:
    """Trains one run, and evaluates it on the images for choosing or for judging."""
    data = images.of(setting, case["seed"])
    trainer = _trainer(setting, *_group(case))
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.advance(setting.num_steps)
    test = data.chosen if case["stage"] == tuning.TUNING else data.judged
    last, fitted = trainer.evaluate(test.images, test.labels), trainer.evaluate(data.train.images, data.train.labels)
    with trainer.average.applied(trainer.model):
        average = trainer.evaluate(test.images, test.labels)
    return {
        "accuracy": last.accuracy,
        "ema_accuracy": average.accuracy,
        "train_accuracy": fitted.accuracy,
        "train_loss": fitted.loss,
    }


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """The chosen learning rates."""
    return {"learning_rates": learning_rates(setting, lines)}


def _group(case: Mapping[str, Any]) -> tuple[str, float | None, int]:
    return case["arm"], case["l2_norm_clip"], case["batch_size"]


# A few trainers at a time: each holds a compiled step.
@functools.lru_cache(maxsize=12)
def _trainer(setting: Setting, arm: str, bound: float | None, batch_size: int):
    # Takes seconds to import; a command line is read without it.
    from noisy_sgd.studies.laboratory import arms, losses, networks, training

    return training.Trainer(
        networks.builder(setting.network, images.of(setting, 0)),
        arms.optimizer(
            arm,
            batch_size=batch_size,
            noise_std=setting.noise_std,
            l2_norm_clip=bound,
            coefficients=setting.noise_coefficients,
        ),
        batch_size=batch_size,
        loss=losses.named(setting.loss),
        ema_decay=setting.ema_decay,
    )
