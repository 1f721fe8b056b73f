"""Curvature and gradient noise along training: figures of experiments/landscape.

    draw_along_training    four quantities against the step, one line per group of runs
    draw_ratios            two groups of runs compared at the same training accuracy, seed by seed

Each takes a `records.Record` whose metrics are the experiment's lines:

    landscape.draw_along_training(records.read("results/landscape/images"), pathlib.Path("results/figures"))

Tested by tests/experiments/landscape_test.py.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_QUANTITIES = {
    "hessian_top": r"$\lambda_1$ of the Hessian",
    "covariance_top": r"$\lambda_1(K)$, covariance of gradients",
    "covariance_trace": r"trace of $K$",
    "train_loss": "training loss",
}
_COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7")
_COMPARED = {
    ("break_even", "covariance_top"): r"$\lambda_1(K)$, lr 0.3 over 0.03",
    ("break_even", "conditioning"): r"$\lambda_1(K)/\lambda_{10}(K)$, lr 0.3 over 0.03",
    ("hessian_by_learning_rate", "hessian_top"): r"$\lambda_1$ of the Hessian, lr 0.3 over 0.03",
    ("covariance_by_batch_size", "covariance_top"): r"$\lambda_1(K)$, B = 16 over 256",
    ("hessian_by_noise", "hessian_top"): r"$\lambda_1$ of the Hessian, B = 256, noise over none",
}


@canvas.styled
def draw_along_training(run: records.Record, directory: pathlib.Path, name: str = "landscape") -> list[pathlib.Path]:
    """Geometric means over seeds at fixed steps, with 95 % intervals, one line per group of runs."""
    groups = list(dict.fromkeys(_group(line) for line in run.metrics))
    figure = figures.Figure(figsize=(8.0, 6.2), layout="constrained")
    rows: list[dict[str, Any]] = []
    first_steps = [point["step"] for point in run.metrics[0]["points"] if point["step"]]
    for axes, (quantity, label) in zip(figure.subplots(2, 2).flat, _QUANTITIES.items(), strict=True):
        for group, color in zip(groups, _COLORS, strict=True):
            points = [
                point
                for line in run.metrics
                if _group(line) == group
                for point in line["points"]
                if not point["at_target"]
            ]
            steps = sorted({point["step"] for point in points})
            found = [
                statistics.estimate(
                    [
                        math.log(point[quantity])
                        for point in points
                        if point["step"] == step and _positive(point, quantity)
                    ]
                    or [math.nan]
                )
                for step in steps
            ]
            means = np.exp([one.mean for one in found])
            # Lines with noise are dashed, because they may cover those without.
            dashes = "--" if group[-1] else "-"
            axes.plot(steps, means, dashes, marker="o", color=color, markersize=3, linewidth=1.3, label=_label(group))
            low, high = (np.exp([getattr(one, end) for one in found]) for end in ("low", "high"))
            axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
            rows += [
                {
                    "quantity": quantity,
                    "group": _label(group),
                    "step": step,
                    "geometric_mean": float(mean),
                    "interval_low": float(bottom),
                    "interval_high": float(top),
                    "seeds": one.count,
                }
                for step, mean, bottom, top, one in zip(steps, means, low, high, found, strict=True)
            ]
        axes.set_xscale("symlog", linthresh=min(first_steps))
        axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.set_xlabel("step (logarithmic after the first mark)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_ratios(run: records.Record, directory: pathlib.Path, name: str = "landscape_ratios") -> list[pathlib.Path]:
    """Ratios at the target training accuracy: the mean over seeds with its 95 % interval."""
    found = {(row["row"], part["part"]): (row, part) for row in run.results["rows"] for part in row["parts"]}
    figure, (axes,) = canvas.panels(width=6.4, height=2.8)
    rows = []
    for place, key in enumerate(_COMPARED):
        row, part = found[key]
        # The differences are those of the second group minus the first.
        ratio, low, high = (
            math.exp(-part[name]) if part[name] is not None else math.nan for name in ("mean", "high", "low")
        )
        axes.errorbar(ratio, place, xerr=[[ratio - low], [high - ratio]], fmt="o", color=_COLORS[0], capsize=3)
        rows.append(
            {
                "row": key[0],
                "part": key[1],
                "ratio": ratio,
                "interval_low": low,
                "interval_high": high,
                "verdict": row["verdict"],
                "seeds": part["seeds"],
            }
        )
    axes.axvline(1.0, color="0.4", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(_COMPARED)), list(_COMPARED.values()), fontsize=8)
    axes.set_ylim(len(_COMPARED) - 0.5, -0.5)
    axes.set_xlabel("ratio at the same training accuracy; below 1 as claimed")
    return canvas.save(figure, rows, directory, name)


def _group(line: Mapping[str, Any]) -> tuple[int, float, float]:
    return line["batch_size"], line["learning_rate"], line["noise_std"]


def _label(group: tuple[int, float, float]) -> str:
    batch_size, rate, noise = group
    return f"B = {batch_size}, lr {rate:g}" + (f", noise {noise:g}" if noise else "")


def _positive(point: Mapping[str, Any], quantity: str) -> bool:
    return point[quantity] is not None and point[quantity] > 0
