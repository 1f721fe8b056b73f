"""Two figures of experiments/pruning: DP-SGD on pruned networks.

    draw_accuracy    accuracy against the pruned fraction, a line per epsilon, a panel per start and width
    draw_gains       accuracy gained over no pruning, at every epsilon

Each takes a `records.Record` whose metrics are the experiment's lines:

    pruning.draw_accuracy(records.read("results/pruning/mnist"), pathlib.Path("results/figures"))

Tested by tests/experiments/pruning_test.py.
"""

import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_STARTS = {"random": "random weights", "public": "weights trained on public digits 0 to 4"}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "v")


@canvas.styled
def draw_accuracy(run: records.Record, directory: pathlib.Path, name: str = "pruning") -> list[pathlib.Path]:
    """Final test accuracy against the fraction pruned: mean over seeds with its 95 % interval."""
    figure, rows = _drawn(run, "test accuracy after the last step (%)", lambda values, fraction: values[fraction])
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_gains(run: records.Record, directory: pathlib.Path, name: str = "pruning_gains") -> list[pathlib.Path]:
    """Accuracy with pruning less that without, paired by seed: mean over seeds with its 95 % interval."""

    def gain(by_fraction, fraction):
        return {seed: value - by_fraction[0.0][seed] for seed, value in by_fraction[fraction].items()}

    figure, rows = _drawn(run, "accuracy gained over no pruning (points)", gain)
    for axes in figure.axes:
        axes.axhline(0.0, color="#888888", linewidth=0.8)
    return canvas.save(figure, rows, directory, name)


def _drawn(run, label, values):
    """The figure, and the numbers behind it, of values(accuracy by fraction and seed, fraction) -> values by seed."""
    widths, epsilons, fractions = (run.config[key] for key in ("widths", "epsilons", "fractions"))
    figure = figures.Figure(figsize=(3.4 * len(widths) + 1, 5.6), layout="constrained")
    panels = figure.subplots(len(_STARTS), len(widths), sharex=True, sharey=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    places = np.arange(len(fractions), dtype=float)
    cells = zip(panels.flat, itertools.product(_STARTS, widths), strict=True)
    for axes, (start, width) in cells:
        for index, epsilon in enumerate(sorted(epsilons)):
            by_fraction = _accuracies(run, start, width, epsilon)
            if not by_fraction:
                continue
            found = [statistics.estimate(list(values(by_fraction, fraction).values())) for fraction in fractions]
            bars = np.nan_to_num([one.half_width for one in found])
            look = {"color": _COLORS[index % 4], "marker": _MARKERS[index % 4], "markersize": 5, "capsize": 3}
            shift = 0.06 * (index - (len(epsilons) - 1) / 2)
            means = [one.mean for one in found]
            axes.errorbar(places + shift, means, bars, label=rf"$\varepsilon$ = {epsilon:g}", **look)
            rows += [
                {
                    "start": start,
                    "width": width,
                    "epsilon": epsilon,
                    "fraction": fraction,
                    "mean": one.mean,
                    "low": one.low,
                    "high": one.high,
                    "seeds": one.count,
                }
                for fraction, one in zip(fractions, found, strict=True)
            ]
        axes.set_title(f"{_STARTS[start]}, width {width}", fontsize=8)
        axes.set_xticks(places, [f"{100 * fraction:g}" for fraction in fractions])
    for axes in panels[-1]:
        axes.set_xlabel("hidden weights pruned (%)")
    for axes in panels[:, 0]:
        axes.set_ylabel(label, fontsize=8)
    # Every epsilon is measured at the first width.
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(epsilons), fontsize=8)
    figure.suptitle(f"mean and 95 % interval over {rows[0]['seeds']} seeds, rates tuned at every point", fontsize=8)
    return figure, rows


def _accuracies(run: records.Record, start: str, width: int, epsilon: float) -> dict[float, dict[int, float]]:
    """Accuracy in percent by fraction and seed."""
    found: dict[float, dict[int, float]] = {}
    for line in run.metrics:
        if line["stage"] == "final" and (line["start"], line["width"], line["epsilon"]) == (start, width, epsilon):
            found.setdefault(line["fraction"], {})[line["seed"]] = 100 * line["accuracy"]
    return found
