"""Tail indices of update noise along training: the figure of experiments/gradient_tails.

    gradient_tails.draw(records.read("results/gradient_tails/images"), pathlib.Path("results/figures"))

Tested by tests/experiments/gradient_tails_test.py.
"""

import pathlib
from typing import Any

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_KINDS = {
    "sgd": ("SGD", "#0072B2", "o"),
    "average": ("average of gradients", "#56B4E9", "v"),
    "adam": ("Adam", "#D55E00", "s"),
    "control": ("control: Gaussian noise", "0.4", "x"),
}
_INDICES = {"mcculloch": "McCulloch's index", "hill": "Hill's index, largest 5 %"}


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "gradient_tails") -> list[pathlib.Path]:
    """Means over seeds with 95 % intervals at every checkpoint, one panel per index."""
    figure = figures.Figure(figsize=(8.4, 3.6), layout="constrained")
    rows: list[dict[str, Any]] = []
    steps = [point["step"] for point in run.metrics[0]["points"]]
    for axes, (index, title) in zip(figure.subplots(1, 2), _INDICES.items(), strict=True):
        for kind, (label, color, marker) in _KINDS.items():
            found = [
                statistics.estimate([line["points"][place][index][kind] for line in run.metrics])
                for place in range(len(steps))
            ]
            means, bars = [one.mean for one in found], np.nan_to_num([one.half_width for one in found])
            axes.errorbar(
                range(len(steps)), means, yerr=bars, color=color, marker=marker, markersize=4, capsize=2, label=label
            )
            rows += [
                {
                    "index": index,
                    "kind": kind,
                    "step": step,
                    "mean": one.mean,
                    "interval_low": one.low,
                    "interval_high": one.high,
                    "seeds": one.count,
                }
                for step, one in zip(steps, found, strict=True)
            ]
        axes.set_xticks(range(len(steps)), [f"{step:,}" for step in steps])
        axes.set_xlabel("steps of SGD before")
        axes.set_ylabel(title + " (larger: lighter tails)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas.save(figure, rows, directory, name)
