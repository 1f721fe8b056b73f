"""Figure 1, controlled: accuracy against batch size for four arms, and the slopes of all arms, bounds and rules.

    draw_accuracy    final accuracy, the learning rate chosen per arm: averaged weights, and last weights
    draw_slopes      points per doubling of the batch size, with 95 % intervals over seeds

Each takes the record of `noisy_sgd.experiments.batch_size_effect`:

    draw_slopes(records.read("runs/batch_size_effect"), pathlib.Path("figures"))

Covered by tests/experiments/report/batch_size_effect_claims_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

COLORS = {"plain": "#0072B2", "noise": "#D55E00", "clip": "#CC79A7", "noise_clip": "#009E73"}
MARKERS = {"plain": "o", "noise": "s", "clip": "D", "noise_clip": "^"}
LABELS = {"plain": "SGD", "noise": "noise only", "clip": "clip only", "noise_clip": "DP-SGD"}
RULES = {
    "per_arm": "learning rate per arm",
    "per_size": "learning rate per arm and B",
    "equal": "equal learning rate",
}
WEIGHTS = {"ema_accuracy": "averaged weights", "accuracy": "last weights"}
Arm = tuple[str, float | None]


def accuracies(record: records.Record, rule: str, weights: str) -> dict[Arm, dict[int, dict[int, float]]]:
    """Final accuracies in percent under a rule of `RULES`: (arm, bound) -> seed -> batch size -> value.

    Args:
        record: a finished one.
        rule: by which the learning rates were chosen.
        weights: a key of `WEIGHTS`.
    """
    rates = {
        (choice["arm"], choice["l2_norm_clip"], choice["batch_size"]): choice["learning_rate"]
        for choice in record.results["learning_rates"]
        if choice["rule"] == rule
    }
    found: dict[Arm, dict[int, dict[int, float]]] = {}
    for line in record.metrics:
        group = (line["arm"], line["l2_norm_clip"], line["batch_size"])
        if line["stage"] == "final" and line["learning_rate"] == rates[group]:
            by_seed = found.setdefault(group[:2], {})
            by_seed.setdefault(line["seed"], {})[line["batch_size"]] = 100 * line[weights]
    return found


def slopes(by_seed: dict[int, dict[int, float]]) -> dict[int, float]:
    """Points per doubling of the batch size, of every seed."""
    return {seed: statistics.slope_per_doubling({seed: by_size}).mean for seed, by_size in by_seed.items()}


def label(arm: Arm) -> str:
    """The arm in words, with its bound."""
    name, bound = arm
    return LABELS[name] if bound is None else f"{LABELS[name]}, C = {bound:g}"


@canvas.styled
def draw_accuracy(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Final accuracy against batch size, the learning rate chosen per arm; mean over seeds with its 95 % interval."""
    figure, all_axes = canvas.panels(len(WEIGHTS), width=4.0)
    rows = []
    for axes, (weights, title) in zip(all_axes, WEIGHTS.items(), strict=True):
        found = accuracies(record, "per_arm", weights)
        bounds = sorted({bound for _, bound in found if bound is not None})
        for place, (arm, by_seed) in enumerate(found.items()):
            sizes = sorted(next(iter(by_seed.values())))
            estimates = [statistics.estimate([by_size[size] for by_size in by_seed.values()]) for size in sizes]
            style = "-" if arm[1] is None else ("-", "--", ":", "-.")[bounds.index(arm[1]) % 4]
            axes.errorbar(
                np.array(sizes) * 2.0 ** (0.04 * (place - len(found) / 2)),
                [one.mean for one in estimates],
                yerr=[one.half_width for one in estimates],
                color=COLORS[arm[0]],
                marker=MARKERS[arm[0]],
                linestyle=style,
                markersize=4,
                capsize=2,
                label=label(arm),
            )
            rows += [
                {
                    "weights": weights,
                    "arm": arm[0],
                    "l2_norm_clip": arm[1],
                    "batch_size": size,
                    "seeds": one.count,
                    "accuracy_percent": one.mean,
                    "interval_low": one.low,
                    "interval_high": one.high,
                }
                for size, one in zip(sizes, estimates, strict=True)
            ]
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size B (logarithmic)")
        axes.set_title(title, fontsize=9)
    all_axes[0].set_ylabel("final test accuracy (%)")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(_title(record), fontsize=9)
    return canvas.save(figure, rows, directory, "accuracy_by_batch_size")


@canvas.styled
def draw_slopes(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Points of accuracy per doubling of the batch size: one row per arm and bound, one panel per rule."""
    figure, all_axes = canvas.panels(len(RULES), width=3.2)
    rows = []
    for axes, (rule, title) in zip(all_axes, RULES.items(), strict=True):
        for weights, shift, filled in (("ema_accuracy", -0.12, True), ("accuracy", 0.12, False)):
            found = accuracies(record, rule, weights)
            for place, (arm, by_seed) in enumerate(found.items()):
                one = statistics.estimate(list(slopes(by_seed).values()))
                axes.errorbar(
                    one.mean,
                    place + shift,
                    xerr=one.half_width,
                    color=COLORS[arm[0]],
                    marker=MARKERS[arm[0]],
                    markerfacecolor=COLORS[arm[0]] if filled else "white",
                    markersize=5,
                    capsize=2,
                )
                rows.append(
                    {
                        "rule": rule,
                        "weights": weights,
                        "arm": arm[0],
                        "l2_norm_clip": arm[1],
                        "seeds": one.count,
                        "points_per_doubling": one.mean,
                        "interval_low": one.low,
                        "interval_high": one.high,
                    }
                )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(found)), [label(arm) for arm in found])
        axes.set_xlabel("points per doubling of B")
        axes.set_title(title, fontsize=9)
    all_axes[0].invert_yaxis()
    figure.suptitle(f"{_title(record)}; filled: averaged weights, open: last weights", fontsize=9)
    return canvas.save(figure, rows, directory, "slopes")


def _title(record: records.Record) -> str:
    setting = record.config
    wrong = f", {100 * setting['wrong_labels']:g} % wrong labels" if setting["wrong_labels"] else ""
    loss = ", multiclass hinge" if setting["loss"] == "hinge" else ""
    return (
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples{wrong}, {setting['network']}{loss}, "
        f"{setting['num_steps']:,} steps, {setting['num_seeds']} seeds"
    )
