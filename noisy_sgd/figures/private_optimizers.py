"""Private optimizers at equal epsilon: accuracy at a small and at a large batch size, and calibration.

    draw_accuracies     accuracy of every optimizer and bound, one panel per batch size
    draw_calibration    expected calibration error of the last weights, and of averaged late predictions
    draw_reliability    how often predictions are right against how confident they are

Each takes the record of `noisy_sgd.experiments.private_optimizers`:

    draw_accuracies(records.read("runs/private_optimizers"), pathlib.Path("figures"))

Covered by tests/experiments/report/private_optimizers_claims_test.py.
"""

import pathlib
from typing import Any

import numpy as np

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

LABELS = {
    "dp_sgd": "DP-SGD",
    "dice_sgd": "DiceSGD (no epsilon known)",
    "dp_sparse_sgd": "random sparsification",
    "dp_extrap_sgd": "extrapolation",
    "dp_lars": "LARS",
    "dp_adam": "Adam",
    "dp_sgld": "DP-SGLD, falling rate",
}
# What predicts: optimizer, prefix of the measured values, name, color and marker.
_PREDICTORS = (
    ("dp_sgd", "", "DP-SGD,\nlast weights", "#0072B2", "o"),
    ("dp_sgd", "averaged_", "DP-SGD,\nlate mean", "#009E73", "s"),
    ("dp_sgld", "averaged_", "DP-SGLD,\nlate mean", "#D55E00", "^"),
)
Group = tuple[str, float, int]


def values(record: records.Record, value: str) -> dict[Group, dict[int, Any]]:
    """A measured value of the final runs: (optimizer, relative bound, batch size) -> seed -> value."""
    found: dict[Group, dict[int, Any]] = {}
    for line in record.metrics:
        if line["stage"] == "final":
            group = (line["optimizer"], line["relative_bound"], line["batch_size"])
            found.setdefault(group, {})[line["seed"]] = line[value]
    return found


def label(name: str, bound: float) -> str:
    """An optimizer and its bound in words."""
    return LABELS[name] if bound == 1 else f"{LABELS[name]}, C / {1 / bound:g}"


@canvas.styled
def draw_accuracies(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Final accuracy of every optimizer and bound, mean over seeds with its 95 % interval; one panel per batch size."""
    found = values(record, "accuracy")
    sizes = sorted({size for _, _, size in found})
    figure, all_axes = canvas.panels(len(sizes), width=3.4)
    rows = []
    for axes, size in zip(all_axes, sizes, strict=True):
        groups = [group for group in found if group[2] == size]
        for place, group in enumerate(groups):
            one = statistics.estimate([100 * accuracy for accuracy in found[group].values()])
            axes.errorbar(one.mean, place, xerr=one.half_width, fmt="o", color="#0072B2", markersize=4, capsize=3)
            rows.append(
                {
                    "optimizer": group[0],
                    "relative_bound": group[1],
                    "batch_size": size,
                    "seeds": one.count,
                    "accuracy_percent": one.mean,
                    "interval_low": one.low,
                    "interval_high": one.high,
                }
            )
        reference = np.mean(list(found[groups[0]].values()))
        axes.axvline(100 * reference, color="black", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(groups)), [label(*group[:2]) for group in groups])
        axes.set_xlabel("final test accuracy (%)")
        axes.set_title(f"B = {size}, {record.results['steps'][str(size)]} steps", fontsize=9)
    all_axes[0].invert_yaxis()
    figure.suptitle(_title(record), fontsize=9)
    return canvas.save(figure, rows, directory, "accuracies")


@canvas.styled
def draw_calibration(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Expected calibration error of last weights and of the mean of 20 late predictions; every line is one seed."""
    sizes = sorted({line["batch_size"] for line in record.metrics})
    figure, all_axes = canvas.panels(len(sizes), width=3.4)
    rows = []
    for axes, size in zip(all_axes, sizes, strict=True):
        found = [_predictions(record, name, prefix, size) for name, prefix, *_ in _PREDICTORS]
        for seed in found[0]:
            errors = [100 * one[seed]["calibration_error"] for one in found]
            axes.plot(range(len(errors)), errors, marker="o", color="#0072B2", alpha=0.6, markersize=4)
            for (name, prefix, *_), error in zip(_PREDICTORS, errors, strict=True):
                rows.append(
                    {
                        "batch_size": size,
                        "seed": seed,
                        "optimizer": name,
                        "averaged": bool(prefix),
                        "calibration_error_percent": error,
                    }
                )
        axes.set_xticks(range(len(_PREDICTORS)), [text for _, _, text, *_ in _PREDICTORS])
        axes.set_xlim(-0.4, len(_PREDICTORS) - 0.6)
        axes.set_title(f"B = {size}", fontsize=9)
    all_axes[0].set_ylabel("expected calibration error (%)")
    all_axes[0].set_ylim(bottom=0)
    figure.suptitle(_title(record), fontsize=9)
    return canvas.save(figure, rows, directory, "calibration")


@canvas.styled
def draw_reliability(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """How often predictions are right against their confidence, in bins over all seeds; larger marks: more of them."""
    sizes = sorted({line["batch_size"] for line in record.metrics})
    figure, all_axes = canvas.panels(len(sizes), width=3.4)
    rows = []
    for axes, size in zip(all_axes, sizes, strict=True):
        axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":", label="calibrated")
        for name, prefix, text, color, marker in _PREDICTORS:
            diagrams = [one["reliability"] for one in _predictions(record, name, prefix, size).values()]
            counts, confidences, accuracies = (
                np.array([diagram[value] for diagram in diagrams], float)
                for value in ("counts", "confidences", "accuracies")
            )
            full = counts.sum(axis=0) > 0
            total = counts.sum(axis=0)[full]
            # A bin without examples in one seed has no means there.
            means = [100 * np.nansum(counts * value, axis=0)[full] / total for value in (confidences, accuracies)]
            areas = 120 * np.sqrt(total / total.sum())
            axes.plot(*means, color=color, linewidth=0.8)
            axes.scatter(*means, s=areas, color=color, marker=marker, label=text.replace("\n", " "))
            for place, count, confidence, accuracy in zip(np.flatnonzero(full), total, *means, strict=True):
                rows.append(
                    {
                        "batch_size": size,
                        "optimizer": name,
                        "averaged": bool(prefix),
                        "bin": int(place),
                        "predictions": int(count),
                        "confidence_percent": float(confidence),
                        "right_percent": float(accuracy),
                    }
                )
        axes.set_xlabel("confidence (%)")
        axes.set_title(f"B = {size}", fontsize=9)
    all_axes[0].set_ylabel("predictions that are right (%)")
    all_axes[0].legend(fontsize=8, markerscale=0.6)
    figure.suptitle(_title(record), fontsize=9)
    return canvas.save(figure, rows, directory, "reliability")


def _predictions(record: records.Record, name: str, prefix: str, size: int) -> dict[int, dict[str, Any]]:
    """Seed -> calibration error and reliability, of an optimizer at the first bound."""
    group = (name, record.config["relative_bounds"][0], size)
    both = {value: values(record, f"{prefix}{value}")[group] for value in ("calibration_error", "reliability")}
    return {seed: {value: of_seed[seed] for value, of_seed in both.items()} for seed in both["reliability"]}


def _title(record: records.Record) -> str:
    setting = record.config
    return (
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples, {setting['network']}, "
        f"epsilon = {setting['epsilon']:g}, {setting['num_epochs']} epochs, {setting['num_seeds']} seeds"
    )
