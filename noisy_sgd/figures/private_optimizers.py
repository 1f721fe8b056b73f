"""Private optimizers at equal epsilon: accuracy at a small and at a large batch size, and calibration.

    draw_accuracies     accuracy of every optimizer and bound, one panel per batch size
    draw_calibration    expected calibration error of the last weights, and of averaged late predictions

Each takes the record of `noisy_sgd.experiments.private_optimizers`:

    draw_accuracies(records.read("runs/private_optimizers"), pathlib.Path("figures"))

Covered by tests/experiments/report/private_optimizers_claims_test.py.
"""

import pathlib

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
}
_VALUES = {"calibration_error": "last weights", "averaged_calibration_error": "mean of 20\nlate predictions"}
Group = tuple[str, float, int]


def values(record: records.Record, value: str) -> dict[Group, dict[int, float]]:
    """A measured value of the final runs: (optimizer, relative bound, batch size) -> seed -> value."""
    found: dict[Group, dict[int, float]] = {}
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
    """Expected calibration error of DP-SGD, last weights against averaged predictions; every line is one seed."""
    sizes = sorted({line["batch_size"] for line in record.metrics})
    figure, all_axes = canvas.panels(len(sizes), width=3.0)
    rows = []
    for axes, size in zip(all_axes, sizes, strict=True):
        pairs = [values(record, value)["dp_sgd", record.config["relative_bounds"][0], size] for value in _VALUES]
        for seed in pairs[0]:
            both = [100 * pair[seed] for pair in pairs]
            axes.plot([0, 1], both, marker="o", color="#0072B2", alpha=0.6, markersize=4)
            rows.append({"batch_size": size, "seed": seed, **dict(zip(_VALUES, both, strict=True))})
        axes.set_xticks([0, 1], list(_VALUES.values()))
        axes.set_xlim(-0.4, 1.4)
        axes.set_title(f"DP-SGD, B = {size}", fontsize=9)
    all_axes[0].set_ylabel("expected calibration error (%)")
    all_axes[0].set_ylim(bottom=0)
    figure.suptitle(_title(record), fontsize=9)
    return canvas.save(figure, rows, directory, "calibration")


def _title(record: records.Record) -> str:
    setting = record.config
    return (
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples, {setting['network']}, "
        f"epsilon = {setting['epsilon']:g}, {setting['num_epochs']} epochs, {setting['num_seeds']} seeds"
    )
