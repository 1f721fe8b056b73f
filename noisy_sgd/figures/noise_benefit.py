"""Small against large batches with tuned learning rates: figures of experiments/noise_benefit.

    draw_batch_sizes    test accuracy and training loss of the final runs against the batch size, for both budgets
    draw_tuning         accuracy on the examples for choosing against the learning rate

Each takes a `records.Record` whose metrics are the experiment's lines:

    noise_benefit.draw_batch_sizes(records.read("results/noise_benefit/images"), pathlib.Path("results/figures"))

Tested by tests/experiments/noise_benefit_test.py.
"""

import pathlib
from typing import Any

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_BUDGETS = {"steps": ("equal steps", "#0072B2", "o"), "epochs": ("equal epochs", "#D55E00", "s")}


@canvas.styled
def draw_batch_sizes(run: records.Record, directory: pathlib.Path, name: str = "noise_benefit") -> list[pathlib.Path]:
    """Means over the seeds of the final runs with 95 % intervals, each batch size at its chosen learning rate."""
    final = [line for line in run.metrics if not line["tuning"]]
    sizes = sorted({line["batch_size"] for line in final})
    figure = figures.Figure(figsize=(8.4, 3.4), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    rows: list[dict[str, Any]] = []
    for axes, quantity, scale in ((accuracy, "judged_accuracy", 100), (loss, "train_loss", 1)):
        for budget, (label, color, marker) in _BUDGETS.items():
            found = []
            for size in sizes:
                values = [
                    scale * line[quantity]
                    for line in final
                    if (line["batch_size"], line["budget"]) == (size, budget) and line[quantity] is not None
                ]
                found.append(statistics.estimate(values or [np.nan]))
            means, bars = [one.mean for one in found], np.nan_to_num([one.half_width for one in found])
            axes.errorbar(sizes, means, yerr=bars, color=color, marker=marker, markersize=5, capsize=3, label=label)
            rows += [
                {
                    "quantity": quantity,
                    "budget": budget,
                    "batch_size": size,
                    "mean": one.mean,
                    "interval_low": one.low,
                    "interval_high": one.high,
                    "seeds": one.count,
                }
                for size, one in zip(sizes, found, strict=True)
            ]
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size B (the largest is the whole training set)")
    accuracy.set_ylabel("final test accuracy (%)")
    loss.set_ylabel("final training loss")
    loss.set_yscale("log")
    accuracy.legend()
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_tuning(run: records.Record, directory: pathlib.Path, name: str = "noise_benefit_tuning") -> list[pathlib.Path]:
    """Mean accuracy of the tuning seeds; the chosen learning rate of each batch size is marked by a ring."""
    tuned = [line for line in run.metrics if line["tuning"]]
    figure, panels = canvas.panels(2, width=4.0, height=3.4)
    rows = []
    for axes, (budget, (label, _, _)) in zip(panels, _BUDGETS.items(), strict=True):
        for size, color in zip(sorted({line["batch_size"] for line in tuned}), _SIZE_COLORS, strict=False):
            case = [line for line in tuned if (line["batch_size"], line["budget"]) == (size, budget)]
            rates = sorted({line["learning_rate"] for line in case})
            means = [
                100 * float(np.mean([line["chosen_accuracy"] for line in case if line["learning_rate"] == rate]))
                for rate in rates
            ]
            axes.plot(rates, means, "o-", markersize=3, color=color, label=f"B = {size}")
            best = int(np.argmax(means))
            axes.plot(rates[best], means[best], "o", markersize=9, markerfacecolor="none", color=color)
            rows += [
                {"budget": budget, "batch_size": size, "learning_rate": rate, "accuracy_percent": mean}
                for rate, mean in zip(rates, means, strict=True)
            ]
        axes.set_xscale("log", base=2)
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.set_xlabel("learning rate")
        axes.set_title(label, fontsize=9)
    panels[0].set_ylabel("accuracy on the examples\nfor choosing (%)")
    panels[0].legend(fontsize=8)
    return canvas.save(figure, rows, directory, name)


_SIZE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
