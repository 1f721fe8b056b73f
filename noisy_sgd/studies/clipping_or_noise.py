"""Is it the clipping or the noise that costs DP-SGD accuracy? After Watson et al. 2023, "Inference and Interference".

Four arms train with the same steps and the same noise: SGD, noise only, clip only, and both (DP-SGD). The bound C is
the median norm of the examples' gradients at the initialization, or a part of it; the noise on the mean gradient is a
fixed multiple of C. A run may also switch from one arm to another. A seed draws the training set, the initialization,
the order and the noise, which are the same in all arms. Learning rates are chosen per arm on a preset grid by other
seeds, on images on which nothing is judged; the grid of a clipped arm is divided by the part of the median, so that the
longest possible step is the same. With the rule `EQUAL` all arms train with SGD's learning rate.

    setting = Setting(dataset="digits", num_steps=200, num_seeds=5)
    lines = []
    for stage in stages(setting):
        lines += [{**case, **measure(setting, case)} for case in stage(lines)]
    summary(setting, lines)["rows"]
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import arm_runs, arms, images, networks, settings, tuning

NORMS = "norms"
TUNED, EQUAL = RULES = ("tuned", "equal")
# The arms that SGD is switched to and from.
OTHERS = (arms.NOISE_CLIP, arms.NOISE, arms.CLIP)
# In points of accuracy.
MARGIN = 0.5

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Tuned):
    """What is trained, and how often; beside the images.

    Attributes:
        width: units of the hidden layer of the perceptron.
        other_widths: widths that the arms are compared at too, with the first of the bounds and tuned rates.
        batch_size: B.
        num_steps: of every run.
        ema_decay: of the weights' average, whose accuracy is recorded beside that of the last weights.
        relative_noise: sigma / B: standard deviation of the noise on the mean gradient, in units of C.
        relative_clips: bounds C, in units of the median norm at the initialization.
    """

    width: int = 128
    other_widths: tuple[int, ...] = (32, 1024)
    batch_size: int = 64
    num_steps: int = 1_500
    ema_decay: float = 0.98
    relative_noise: float = 0.006
    relative_clips: tuple[float, ...] = (1.0, 0.1)
    learning_rates: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)

    def clips_at(self, width: int) -> tuple[float, ...]:
        """The relative bounds that are measured at a width."""
        return self.relative_clips if width == self.width else self.relative_clips[:1]


def stages(setting: Setting) -> list[Callable[[Sequence[Line]], list[dict[str, Any]]]]:
    """From the lines of the earlier stages to the cases of the next: the main width first, then the others."""

    def norms(lines):
        widths = (setting.width, *setting.other_widths)
        return [{"stage": NORMS, "width": width, "seed": seed} for width in widths for seed in setting.tuning_seeds]

    found = [norms]
    for widths in ((setting.width,), setting.other_widths):
        found.append(functools.partial(_tuning_cases, setting, widths))
        found.append(functools.partial(_final_cases, setting, widths))
    return found


def _tuning_cases(setting, widths, lines):
    medians = _medians(lines)
    groups = []
    for width in widths:
        groups.append((width, None, arms.PLAIN))
        groups += [(width, clip, arm) for clip in setting.clips_at(width) for arm in settings.ARMS if arm != arms.PLAIN]
    return [
        {
            "stage": tuning.TUNING,
            "arm": arm,
            **_noise_and_clip(setting, medians, width, clip),
            "rate": rate,
            "seed": seed,
        }
        for width, clip, arm in groups
        for rate in _grid(setting, arm, clip)
        for seed in setting.tuning_seeds
    ]


def _final_cases(setting, widths, lines):
    medians, chosen = _medians(lines), _rates(lines)
    cases = []
    for width in widths:
        for rule in RULES if width == setting.width else (TUNED,):
            for clip in setting.clips_at(width):
                rates = {arm: chosen[width, None if arm == arms.PLAIN else clip, arm] for arm in settings.ARMS}
                if rule == EQUAL:
                    rates = dict.fromkeys(settings.ARMS, rates[arms.PLAIN])
                group = {
                    "stage": tuning.FINAL,
                    "rule": rule,
                    **_noise_and_clip(setting, medians, width, clip),
                    "rates": rates,
                }
                cases += [{**group, "seed": seed} for seed in range(setting.num_seeds)]
    return cases


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, Any]:
    """Measures a case of any stage.

    Returns:
        Of the stage `NORMS` the `median_norm`; of `TUNING` the `accuracy` on the images for choosing; of `FINAL`

        arms        for each arm accuracies and losses at the end, distance from the initialization, `looks` on the way
        switches    with tuned rates at the main width: the runs of `arm_runs.Group.switched`
        lines       likewise: the lines of `arm_runs.Group.line`
    """
    if case["stage"] == NORMS:
        return {"median_norm": _median_norm(setting, case["width"], case["seed"])}
    trainers = _trainers(setting, case["width"], case["l2_norm_clip"], case["noise_std"])
    data = images.of(setting, case["seed"])
    if case["stage"] == tuning.TUNING:
        trainer = trainers.of(case["arm"])
        trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["rate"])
        trainer.advance(setting.num_steps)
        return {"accuracy": trainer.evaluate(data.chosen.images, data.chosen.labels).accuracy}
    runs = arm_runs.Group(trainers, data, seed=case["seed"], rates=case["rates"], num_steps=setting.num_steps)
    found: dict[str, Any] = {"arms": {arm: runs.whole(arm).measured for arm in settings.ARMS}}
    if case["rule"] == TUNED and case["width"] == setting.width:
        pairs = [pair for other in OTHERS for pair in ((other, arms.PLAIN), (arms.PLAIN, other))]
        found["switches"] = [runs.switched(*pair, switch) for pair in pairs for switch in arm_runs.SWITCHES]
        found["lines"] = [runs.line(other) for other in OTHERS]
    return found


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """The data set, the chosen learning rates, and the rows with their verdicts.

    The rows, on accuracies in points and with the first bound unless stated otherwise:

        noise beats clipping                   noise only less clip only, tuned, at every bound
        noise beats clipping at equal rates    the same, with SGD's learning rate in all arms
        late phase                             switches at one half: DP-SGD to SGD ends nearer SGD's end, and SGD to
                                               DP-SGD nearer DP-SGD's
        late phase at all switches             the same at 25, 50 and 75 %
        recovery                               DP-SGD to SGD at one half ends within half a point of SGD
        slow start                             SGD less DP-SGD after an eighth of the steps
        dimension                              SGD less DP-SGD, at the largest width less at the main one
    """
    final = [line for line in lines if line["stage"] == tuning.FINAL]

    def of(rule, width, clip):
        chosen = [line for line in final if (line["rule"], line["width"], line["relative_clip"]) == (rule, width, clip)]
        return sorted(chosen, key=lambda line: line["seed"])

    def gap(lines, better, worse):
        return [100 * (line["arms"][better]["accuracy"] - line["arms"][worse]["accuracy"]) for line in lines]

    def nearer(switch):
        to_plain, to_both = (
            [_switched(line, *pair, switch)["position"] for line in main]
            for pair in ((arms.NOISE_CLIP, arms.PLAIN), (arms.PLAIN, arms.NOISE_CLIP))
        )
        return {
            f"1/2 - position, DP-SGD to SGD at {100 * switch:g} %": 0.5 - np.array(to_plain, float),
            f"position - 1/2, SGD to DP-SGD at {100 * switch:g} %": np.array(to_both, float) - 0.5,
        }

    first, width = setting.relative_clips[0], setting.width
    main, widest = of(TUNED, width, first), max((setting.width, *setting.other_widths))
    recovered = [
        100 * (_switched(line, arms.NOISE_CLIP, arms.PLAIN, 0.5)["accuracy"] - line["arms"][arms.PLAIN]["accuracy"])
        for line in main
    ]
    early = [
        100 * (line["arms"][arms.PLAIN]["looks"][1]["accuracy"] - line["arms"][arms.NOISE_CLIP]["looks"][1]["accuracy"])
        for line in main
    ]
    gaps = [np.array(gap(of(TUNED, one, first), arms.PLAIN, arms.NOISE_CLIP)) for one in (widest, width)]

    def beats(rule):
        return {
            f"C = {clip:g} median": gap(of(rule, width, clip), arms.NOISE, arms.CLIP) for clip in setting.relative_clips
        }

    rows = [
        verdicts.Row("noise beats clipping", beats(TUNED)),
        verdicts.Row("noise beats clipping at equal rates", beats(EQUAL)),
        verdicts.Row("late phase", nearer(0.5)),
        verdicts.Row(
            "late phase at all switches", {k: v for switch in arm_runs.SWITCHES for k, v in nearer(switch).items()}
        ),
        verdicts.Row("recovery", verdicts.equal(recovered, MARGIN)),
        verdicts.Row("slow start", {f"after {100 * arm_runs.LOOKS[1]:g} % of the steps": early}),
        verdicts.Row("dimension", {f"width {widest} less {width}": gaps[0] - gaps[1]}),
    ]
    return {
        "dataset": images.resolved(setting.dataset, setting.data_dir),
        "median_norms": {str(width): median for width, median in _medians(lines).items()},
        "rates": [
            {"width": width, "relative_clip": clip, "arm": arm, "rate": rate, "grid": _grid(setting, arm, clip)}
            for (width, clip, arm), rate in _rates(lines).items()
        ],
        "rows": verdicts.judge(rows),
    }


def _median_norm(setting, width, seed):
    data = images.of(setting, seed)
    model = networks.builder("mlp", data, width=width)(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    train = data.train.images, data.train.labels
    return float(np.median(clipped_sum.clipped_gradient_sum(model, loss, *train, l2_norm_clip=1.0).norms))


def _medians(lines) -> dict[int, float]:
    """The mean over seeds of the median norm at each width."""
    norms = [line for line in lines if line["stage"] == NORMS]
    widths = dict.fromkeys(line["width"] for line in norms)
    return {
        width: float(np.mean([line["median_norm"] for line in norms if line["width"] == width])) for width in widths
    }


def _rates(lines) -> dict[tuple, float]:
    """The learning rate with the highest mean accuracy, for each width, relative bound and arm."""
    means = tuning.means(lines, lambda line: (line["width"], line["relative_clip"], line["arm"]), rate="rate")
    return {group: max(by_rate, key=by_rate.get) for group, by_rate in means.items()}


def _noise_and_clip(setting, medians, width, clip) -> dict[str, Any]:
    # SGD reads neither.
    bound = medians[width] * (setting.relative_clips[0] if clip is None else clip)
    return {
        "width": width,
        "relative_clip": clip,
        "l2_norm_clip": bound,
        "noise_std": setting.relative_noise * bound,
    }


def _grid(setting, arm, clip) -> list[float]:
    clipped = arm in (arms.CLIP, arms.NOISE_CLIP)
    return [rate / clip if clipped else rate for rate in setting.learning_rates]


def _switched(line, first, then, switch):
    return next(one for one in line["switches"] if (one["first"], one["then"], one["switch"]) == (first, then, switch))


# The trainers of the two bounds at one width; each of four holds a compiled step.
@functools.lru_cache(maxsize=2)
def _trainers(setting: Setting, width: int, l2_norm_clip: float, noise_std: float) -> arm_runs.Trainers:
    return arm_runs.Trainers(
        networks.builder("mlp", images.of(setting, settings.FIRST_TUNING_SEED), width=width),
        batch_size=setting.batch_size,
        l2_norm_clip=l2_norm_clip,
        noise_std=noise_std,
        ema_decay=setting.ema_decay,
    )
