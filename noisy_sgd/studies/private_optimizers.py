"""Private optimizers at equal epsilon: which of them makes large batches lose less?

DP-SGD with small and with large batches passes over the training set equally often, so that large batches take fewer
steps. The noise of every optimizer is that which the stated epsilon allows DP-SGD at the same batch size with Poisson
sampling. The *gap* is DP-SGD's accuracy at the small batch size less that at the large one; an optimizer closes the
share of the gap by which its accuracy at the large batch size exceeds DP-SGD's. Learning rates are chosen per
optimizer, bound and batch size, by other seeds and other images than those of the final runs.

DP-SGD at any constant rate is DP-SGLD at some temperature (`optimizers.langevin`). What the arm of DP-SGLD adds is a
rate that falls in proportion to (1 + t / b)^-0.55 (Welling and Teh 2011), with b a twentieth of the steps and with the
grid's rate as its mean, and predictions that are averaged over late iterates; DP-SGD's are averaged too, as a control.

DiceSGD has no known epsilon: it gets DP-SGD's noise, times sqrt(1 + 2 C'/C) as its paper compares it. Only the
optimizers at bounds far below the gradients' norms test what it is made for, so that DP-SGD and DiceSGD are trained at
several bounds, fractions of the median norm of the examples' gradients at the initialization.

    setting = Setting(batch_sizes=(64, 1_024), num_seeds=5)
    lines = [{**case, **measure(setting, case)} for case in stages(setting)[0]([])]
    final_cases(setting, lines)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import checks, privacy, sampling
from noisy_sgd.studies import calibration_error, verdicts
from noisy_sgd.studies.laboratory import images, settings, tuning

DP_SGD, DICE_SGD, SPARSE, EXTRAPOLATED, LARS, ADAM, SGLD = OPTIMIZERS = (
    "dp_sgd",
    "dice_sgd",
    "dp_sparse_sgd",
    "dp_extrap_sgd",
    "dp_lars",
    "dp_adam",
    "dp_sgld",
)
# The optimizers that are trained at every bound; the others are trained at the first one.
AT_EVERY_BOUND = (DP_SGD, DICE_SGD)
FINAL_RATE, EXTRAPOLATION, TRUST = 0.9, 0.5, 0.02
# The steps of these do not depend on the length of the gradients; learning rates relative to the grid of the others.
_SCALE_FREE = {ADAM: 0.01, LARS: 1.0}
LATE_ITERATES = 20
_FALLING_PARTS, _FALLING_START, _FALLING_POWER = 40, 0.05, 0.55
# Points of accuracy.
_NOT_WORSE = 0.5
_DELTA = 1e-5

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Network, settings.Tuned):
    """What is trained, and how often; beside the images, the network and the loss.

    Attributes:
        epsilon: of DP-SGD with Poisson sampling, at delta = 1e-5.
        num_epochs: passes over the training set, by the expected number of examples.
        batch_sizes: the small and the large one.
        relative_bounds: C over the median norm; the first one is that of all optimizers.
    """

    num_train_examples: int = 10_000
    epsilon: float = 3.0
    num_epochs: int = 8
    batch_sizes: tuple[int, ...] = (64, 1_024)
    relative_bounds: tuple[float, ...] = (1.0, 0.1, 0.01)
    learning_rates: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
    num_tuning_seeds: int = 1

    def __post_init__(self):
        super().__post_init__()
        small_and_large = len(self.batch_sizes) == 2 and 0 < self.batch_sizes[0] < self.batch_sizes[1]
        checks.require(small_and_large, "batch_sizes", "must be a small and a large one", self.batch_sizes)
        checks.batch(self.batch_sizes[1], self.num_train_examples)
        bounds = self.relative_bounds
        checks.require(len(bounds) > 0 and min(bounds) > 0, "relative_bounds", "must list numbers above 0", bounds)
        checks.real("epsilon", self.epsilon, above=0)
        checks.count("num_epochs", self.num_epochs)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Optimizer, bound and batch size of the runs that share a compiled step."""
        return [
            {"optimizer": name, "relative_bound": bound, "batch_size": size}
            for size in self.batch_sizes
            for name in OPTIMIZERS
            for bound in (self.relative_bounds if name in AT_EVERY_BOUND else self.relative_bounds[:1])
        ]

    def steps(self, batch_size: int) -> int:
        """The number of steps at a batch size."""
        return max(1, round(self.num_epochs * self.num_train_examples / batch_size))


def stages(setting: Setting) -> list[Callable[[Sequence[Line]], list[dict[str, Any]]]]:
    """From the lines of the earlier stages to the cases of the next."""
    return [lambda lines: tuning.cases(setting, setting.groups), lambda lines: final_cases(setting, lines)]


def final_cases(setting: Setting, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The runs that are judged, each group with its learning rate of the highest mean accuracy in the tuning runs."""
    return tuning.final_cases(setting, setting.groups, lines, _group)


def noise_multiplier(setting: Setting, batch_size: int) -> float:
    """Sigma that the stated epsilon allows DP-SGD."""
    return _noise_multiplier(setting.epsilon, batch_size, setting.num_train_examples, setting.steps(batch_size))


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, Any]:
    """Trains one run; accuracy and calibration of the last weights, and of averaged late predictions.

    Returns:
        `accuracy`, `calibration_error`, and `reliability` with `counts`, `confidences` and `accuracies` by bin; the
        same with `averaged_` before, of averaged predictions; for DP-SGLD the `temperature` of the last step.
    """
    data = images.of(setting, case["seed"])
    # The masks are drawn by the run's seed as well, which is part of the compiled step.
    mask_seed = case["seed"] if case["optimizer"] == SPARSE else 0
    trainer, bound = _trainer(setting, *_group(case), mask_seed)
    # A small bound makes small steps: the grid is in units of the step of a clipped gradient.
    rate = case["learning_rate"] * _SCALE_FREE.get(case["optimizer"], 1 / bound)
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=rate)
    test = data.chosen if case["stage"] == tuning.TUNING else data.judged
    steps = setting.steps(case["batch_size"])
    falling = _falling(rate, steps) if case["optimizer"] == SGLD else {}
    pauses = np.unique(np.linspace(steps / 2, steps, LATE_ITERATES).round().astype(int))
    late = []
    for stop in sorted({*pauses.tolist(), *falling}):
        trainer.advance(stop - trainer.step)
        if stop in pauses:
            late.append(trainer.probabilities(test.images))
        if stop in falling:
            trainer.model.optimizer.learning_rate.assign(falling[stop])
    found = {}
    for prefix, probabilities in (("", late[-1]), ("averaged_", calibration_error.mean_probabilities(late))):
        diagram = calibration_error.reliability(probabilities, test.labels)
        found[f"{prefix}accuracy"] = float(np.mean(np.argmax(probabilities, axis=1) == test.labels))
        found[f"{prefix}calibration_error"] = diagram.expected_calibration_error
        found[f"{prefix}reliability"] = {
            name: getattr(diagram, name).tolist() for name in ("counts", "confidences", "accuracies")
        }
    if falling:
        found["temperature"] = _temperature(setting, case["batch_size"], falling[max(falling)], bound)
    return found


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """Noise multipliers and steps by batch size, and the judged rows; accuracies are in points.

    The rules: DiceSGD beats DP-SGD at every bound below the first one, at the large batch size. Random sparsification
    is not worse than DP-SGD by half a point, at either batch size. The mean of late predictions halves the calibration
    error of DP-SGD's last weights, at either batch size. That of DP-SGLD is better calibrated than that of DP-SGD, at
    either batch size. Extrapolation, LARS, Adam, the mean of DP-SGD's late predictions, and that of DP-SGLD's close a
    part of the gap between the batch sizes, which itself is above 0.
    """
    small, large = setting.batch_sizes
    first, *further = setting.relative_bounds

    def points(name, size, bound=first, value="accuracy"):
        return 100 * _by_seed(lines, name, bound, size, value)

    def log_errors(name, value):
        return {size: np.log(_by_seed(lines, name, first, size, value)) for size in setting.batch_sizes}

    gap = points(DP_SGD, small) - points(DP_SGD, large)
    last, averaged = log_errors(DP_SGD, "calibration_error"), log_errors(DP_SGD, "averaged_calibration_error")
    langevin = log_errors(SGLD, "averaged_calibration_error")
    closing = {
        **{name: points(name, large) for name in (EXTRAPOLATED, LARS, ADAM)},
        SGLD: points(SGLD, large, value="averaged_accuracy"),
        "averaged": points(DP_SGD, large, value="averaged_accuracy"),
    }
    rows = [
        verdicts.Row("gap", {f"B = {small} less B = {large}": gap}),
        *(
            verdicts.Row(name, {"points closed": accuracies - points(DP_SGD, large)})
            for name, accuracies in closing.items()
        ),
        verdicts.Row(
            SPARSE,
            {
                f"B = {size}, difference + {_NOT_WORSE}": points(SPARSE, size) - points(DP_SGD, size) + _NOT_WORSE
                for size in setting.batch_sizes
            },
        ),
        verdicts.Row(
            "late_predictions", {f"B = {size}": last[size] - averaged[size] - np.log(2) for size in setting.batch_sizes}
        ),
        verdicts.Row(
            "langevin_calibration", {f"B = {size}": averaged[size] - langevin[size] for size in setting.batch_sizes}
        ),
    ]
    if further:
        better = {
            f"C / {1 / bound:g}": points(DICE_SGD, large, bound) - points(DP_SGD, large, bound) for bound in further
        }
        rows.append(verdicts.Row(DICE_SGD, better))
    return {
        "noise_multipliers": {str(size): noise_multiplier(setting, size) for size in setting.batch_sizes},
        "steps": {str(size): setting.steps(size) for size in setting.batch_sizes},
        "rows": verdicts.judge(rows),
    }


def _by_seed(lines: Sequence[Line], name: str, bound: float, batch_size: int, value: str) -> np.ndarray:
    return tuning.by_seed(lines, _group, (name, bound, batch_size), value)


def _group(case: Mapping[str, Any]) -> tuple[str, float, int]:
    return case["optimizer"], case["relative_bound"], case["batch_size"]


def _falling(rate: float, num_steps: int) -> dict[int, float]:
    """The learning rate that begins after a step, for each of equal parts of the steps; about `rate` on average."""
    parts = np.unique(np.linspace(0, num_steps, _FALLING_PARTS, endpoint=False).astype(int))
    shape = (1 + parts / num_steps / _FALLING_START) ** -_FALLING_POWER
    return dict(zip(parts.tolist(), rate * shape / shape.mean(), strict=True))


def _temperature(setting: Setting, batch_size: int, rate: float, bound: float) -> float:
    from noisy_sgd.optimizers import langevin

    return langevin.temperature(
        rate, noise_multiplier(setting, batch_size), bound, batch_size, setting.num_train_examples
    )


@functools.lru_cache
def _noise_multiplier(epsilon: float, batch_size: int, num_examples: int, num_steps: int) -> float:
    plan = {"batch_size": batch_size, "num_examples": num_examples, "num_steps": num_steps, "delta": _DELTA}
    return privacy.noise_multiplier_for(epsilon, **plan, sampling="poisson")


@functools.lru_cache(maxsize=1)
def _median_norm(setting: Setting) -> float:
    """Of the examples' gradients at the initialization, by a seed that no run has."""
    from noisy_sgd.gradients import clipped_sum
    from noisy_sgd.studies.laboratory import losses, networks

    data = images.of(setting, settings.FIRST_TUNING_SEED - 1)
    model = networks.builder(setting.network, data)(settings.FIRST_TUNING_SEED - 1)
    loss, part = losses.named(setting.loss), slice(0, 256)
    found = clipped_sum.clipped_gradient_sum(
        model, loss.call, data.train.images[part], data.train.labels[part], l2_norm_clip=1.0
    )
    return float(np.median(found.norms))


# A few trainers at a time: each holds a compiled step.
@functools.lru_cache(maxsize=4)
def _trainer(setting: Setting, name: str, relative_bound: float, batch_size: int, mask_seed: int):
    # Takes seconds to import; a command line is read without it.
    from noisy_sgd.optimizers import adam, error_feedback, extrapolation, lars, sgd, sparsification
    from noisy_sgd.studies.laboratory import losses, networks, training

    bound = relative_bound * _median_norm(setting)
    sigma, steps = noise_multiplier(setting, batch_size), setting.steps(batch_size)
    common = {"l2_norm_clip": bound, "noise_multiplier": sigma, "batch_size": batch_size, "seed": 0}
    makers = {
        DP_SGD: lambda: sgd.DPSGD(1.0, **common),
        # Both bounds are C, so that the paper's comparison has sqrt(3) times the noise.
        DICE_SGD: lambda: error_feedback.DiceSGD(
            1.0, **{**common, "noise_multiplier": 3**0.5 * sigma}, feedback_clip=bound
        ),
        SPARSE: lambda: sparsification.DPSparseSGD(
            1.0, **common, final_rate=FINAL_RATE, ramp_steps=steps, mask_seed=mask_seed
        ),
        EXTRAPOLATED: lambda: extrapolation.DPExtrapSGD(1.0, **common, extrapolation=EXTRAPOLATION),
        LARS: lambda: lars.DPLARS(1.0, **common, trust_coefficient=TRUST),
        ADAM: lambda: adam.DPAdam(1.0, **common),
        # At the temperature that `_temperature` states.
        SGLD: lambda: sgd.DPSGD(1.0, **common),
    }
    return (
        training.Trainer(
            networks.builder(setting.network, images.of(setting, 0)),
            makers[name](),
            batch_size=batch_size,
            loss=losses.named(setting.loss),
            sampled=sampling.Poisson,
        ),
        bound,
    )
