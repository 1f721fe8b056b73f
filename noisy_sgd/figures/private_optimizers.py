"""Private optimizers at equal epsilon: accuracy at a small and at a large batch size, and calibration.

    draw_accuracies     accuracy of every optimizer and bound, one panel per batch size
    draw_calibration    expected calibration error of the last weights, and of averaged late predictions
    draw_reliability    how often predictions are right against how confident they are

Each takes the record of `noisy_sgd.experiments.private_optimizers`:

    draw_accuracies(records.read("runs/private_optimizers"), pathlib.Path("figures"))

Covered by tests/experiments/report/private_optimizers_claims_test.py.
"""

import pathlib
from collections.abc import Mapping, Sequence
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
    figure, panels = _panels(record)
    rows = []
    for axes, size in panels:
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
    panels[0][0].invert_yaxis()
    return canvas.save(figure, rows, directory, "accuracies")


@canvas.styled
def draw_calibration(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Calibration errors of last weights and of means of 20 late predictions; a line per seed, and the seeds' mean."""
    figure, panels = _panels(record)
    rows = []
    for axes, size in panels:
        found = [_predictions(record, name, prefix, size, "calibration_error") for name, prefix, *_ in _PREDICTORS]
        lines = {seed: [100 * of_seeds[seed] for of_seeds in found] for seed in found[0]}
        means = np.mean(list(lines.values()), axis=0)
        for errors in lines.values():
            axes.plot(range(len(errors)), errors, marker="o", color="#0072B2", alpha=0.6, markersize=4)
        for place, mean in enumerate(means):
            axes.plot([place - 0.15, place + 0.15], [mean, mean], color="black")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.annotate(f"{mean:.1f}", (place + 0.18, mean), va="center", fontsize=8, bbox=box)
        for seed, errors in {**lines, "mean": means}.items():
            for (name, prefix, *_), error in zip(_PREDICTORS, errors, strict=True):
                rows.append(
                    {
                        "batch_size": size,
                        "seed": seed,
                        "optimizer": name,
                        "averaged": bool(prefix),
                        "calibration_error_percent": float(error),
                    }
                )
        axes.set_xticks(range(len(_PREDICTORS)), [text for _, _, text, *_ in _PREDICTORS])
        axes.set_xlim(-0.4, len(_PREDICTORS) - 0.4)
    panels[0][0].set_ylabel("expected calibration error (%)")
    panels[0][0].set_ylim(bottom=0)
    return canvas.save(figure, rows, directory, "calibration")


@canvas.styled
def draw_reliability(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """How often predictions are right against their confidence, in bins over all seeds; larger marks: more of them."""
    figure, panels = _panels(record)
    rows = []
    for axes, size in panels:
        axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":", label="calibrated")
        for name, prefix, text, color, marker in _PREDICTORS:
            bins, counts, confidences, accuracies = _pooled(_predictions(record, name, prefix, size, "reliability"))
            axes.plot(confidences, accuracies, color=color, linewidth=0.8)
            areas = 120 * np.sqrt(counts / counts.sum())
            axes.scatter(confidences, accuracies, s=areas, color=color, marker=marker, label=text.replace("\n", " "))
            for place, count, confidence, accuracy in zip(bins, counts, confidences, accuracies, strict=True):
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
    panels[0][0].set_ylabel("predictions that are right (%)")
    panels[0][0].legend(fontsize=8, markerscale=0.6)
    return canvas.save(figure, rows, directory, "reliability")


def _panels(record: records.Record):
    """A figure with the setting as its title, and its panels, each with a batch size."""
    sizes = sorted({line["batch_size"] for line in record.metrics})
    figure, all_axes = canvas.panels(len(sizes), width=3.4)
    for axes, size in zip(all_axes, sizes, strict=True):
        axes.set_title(f"B = {size}, {record.results['steps'][str(size)]} steps", fontsize=9)
    setting = record.config
    title = (
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples, {setting['network']}, "
        f"epsilon = {setting['epsilon']:g}, {setting['num_epochs']} epochs, {setting['num_seeds']} seeds"
    )
    figure.suptitle(title, fontsize=9)
    return figure, list(zip(all_axes, sizes, strict=True))


def _predictions(record: records.Record, name: str, prefix: str, size: int, value: str) -> dict[int, Any]:
    """Seed -> what was measured of the predictions of an optimizer at the first bound."""
    return values(record, f"{prefix}{value}")[name, record.config["relative_bounds"][0], size]


def _pooled(by_seed: Mapping[int, Mapping[str, Sequence]]) -> tuple[np.ndarray, ...]:
    """The bins that hold predictions, with their number, mean confidence and accuracy in percent, over all seeds."""
    counts, *means = (
        np.array([diagram[value] for diagram in by_seed.values()], float)
        for value in ("counts", "confidences", "accuracies")
    )
    totals = counts.sum(axis=0)
    bins = np.flatnonzero(totals)
    # A bin without predictions in one seed has no means there.
    pooled = (100 * np.nansum(counts * mean, axis=0)[bins] / totals[bins] for mean in means)
    return bins, totals[bins], *pooled
