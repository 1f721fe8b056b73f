"""Figures 3, 6 and 4 of the paper on many data sets, one panel each, from experiments/many_data_sets.

    many_data_sets.draw(records.read("results/many_data_sets/figures"), pathlib.Path("results/figures"))

Tested by tests/studies/many_data_sets_test.py.
"""

import pathlib

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records
from noisy_sgd.figures import canvas

_COLORS = ("#0072B2", "#E69F00", "#D55E00")


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "many_data_sets") -> list[pathlib.Path]:
    """Final distances by data set (Figures 3 and 6), and the rank correlations of Figure 4 by step size."""
    figure = figures.Figure(figsize=(11.0, 3.6), layout="constrained")
    panels, rows = figure.subplots(1, 3), []
    for axes, number in zip(panels, (3, 6), strict=False):
        lines = [line for line in run.metrics if line["figure"] == number]
        noises = lines[0]["noise_scales"]
        values = {_label(noise): [line["squared_distance"][row] for line in lines] for row, noise in enumerate(noises)}
        if number == 3:
            axes.plot([line["gd"] for line in lines], "_", color="#555555", markersize=9, label="gradient descent")
            values |= {"GD": [line["gd"] for line in lines]}
        for row, noise in enumerate(noises):
            color = _COLORS[-1] if row and len(noises) == 2 else _COLORS[row]
            finite = np.array(values[_label(noise)], np.float64)
            axes.plot(finite, "o", color=color, markersize=4, label=_label(noise))
        rows += [
            {"figure": number, "case": case, "data_seed": line["data_seed"], "value": value}
            for case, column in values.items()
            for line, value in zip(lines, column, strict=True)
        ]
        axes.set_yscale("log")
        axes.set_xlabel("data set")
        axes.set_ylabel(r"final $\|\beta-\beta^*\|^2$, mean over surviving runs")
        axes.set_title(f"Figure {number} on {len(lines)} data sets (no dot: all runs diverged)", fontsize=9)
        axes.legend(fontsize=7)
    axes = panels[2]
    trends = run.results["trends"]
    for column, found in enumerate(trends):
        case = (4, found["relative_step"])
        lines = [line for line in run.metrics if (line["figure"], line["relative_step"]) == case]
        values = np.array([line["trend"] for line in lines], np.float64)
        axes.plot(np.linspace(-0.2, 0.2, len(values)) + column, values, "o", color=_COLORS[0], markersize=4, alpha=0.6)
        axes.plot(column, found["correlation"], "k_", markersize=24)
        axes.annotate(f"{found['rises']}/{found['data_sets']}", (column, 1.08), ha="center", fontsize=8)
        rows += [
            {
                "figure": 4,
                "case": f"{found['relative_step']:.3g}",
                "data_seed": line["data_seed"],
                "value": line["trend"],
            }
            for line in lines
        ]
    axes.axhline(0.0, color="#888888", linewidth=0.8)
    axes.set_ylim(-1.1, 1.2)
    axes.set_xticks(range(len(trends)), [f"{found['relative_step']:.3g}" for found in trends])
    axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
    axes.set_ylabel("rank correlation of noise and gap")
    axes.set_title("Figure 4: the gap rises on k/n data sets", fontsize=9)
    return canvas.save(figure, rows, directory, name)


def _label(noise: float) -> str:
    return rf"Noisy-SGD, $\sigma$ = {noise:g}" if noise else "SGD"
