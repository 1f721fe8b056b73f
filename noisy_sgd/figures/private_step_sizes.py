"""The best learning rates of private optimizers: figures of experiments/private_step_sizes.

    draw_accuracies    test accuracy against the learning rate, one panel per optimizer, one line per noise multiplier
    draw_best          the best learning rate against the noise multiplier

Each takes a `records.Record` whose metrics are the experiment's lines:

    private_step_sizes.draw_best(records.read("results/private_step_sizes/images"), pathlib.Path("results/figures"))

Tested by tests/experiments/private_step_sizes_test.py.
"""

import itertools
import pathlib

import numpy as np

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_LABELS = {"dp_sgd": "DP-SGD", "dp_sign_sgd": "DP-SignSGD", "dp_adam": "DP-Adam"}
_COLORS = {"dp_sgd": "#009E73", "dp_sign_sgd": "#CC79A7", "dp_adam": "#E69F00"}
_NOISE_COLORS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")


@canvas.styled
def draw_accuracies(
    run: records.Record, directory: pathlib.Path, name: str = "private_step_sizes_accuracy"
) -> list[pathlib.Path]:
    """Mean test accuracy over seeds with 95 % intervals."""
    noises = sorted({line["noise_multiplier"] for line in run.metrics})
    figure, panels = canvas.panels(len(_LABELS), width=3.3, height=3.4)
    rows = []
    for axes, (optimizer, title) in zip(panels, _LABELS.items(), strict=True):
        for noise, color in zip(noises, itertools.cycle(_NOISE_COLORS), strict=False):
            lines = [
                line for line in run.metrics if (line["optimizer"], line["noise_multiplier"]) == (optimizer, noise)
            ]
            rates = sorted({line["learning_rate"] for line in lines})
            found = [
                statistics.estimate([100 * line["accuracy"] for line in lines if line["learning_rate"] == rate])
                for rate in rates
            ]
            means, bars = [one.mean for one in found], np.nan_to_num([one.half_width for one in found])
            axes.errorbar(
                np.log2(rates), means, yerr=bars, marker="o", markersize=3, color=color, label=rf"$\sigma$ = {noise:g}"
            )
            rows += [
                {
                    "optimizer": optimizer,
                    "noise_multiplier": noise,
                    "learning_rate": rate,
                    "accuracy_percent": one.mean,
                    "interval_low": one.low,
                    "interval_high": one.high,
                    "seeds": one.count,
                }
                for rate, one in zip(rates, found, strict=True)
            ]
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(r"$\log_2$(learning rate)")
    panels[0].set_ylabel("final test accuracy (%)")
    panels[0].legend(fontsize=8)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_best(run: records.Record, directory: pathlib.Path, name: str = "private_step_sizes") -> list[pathlib.Path]:
    """The best learning rate over that at the least noise: every seed as a dot, geometric means as lines."""
    figure, (axes,) = canvas.panels(width=5.2, height=3.8)
    epsilons = {line["noise_multiplier"]: line["epsilon"] for line in run.results["epsilons"]}
    noises = sorted(epsilons)
    rows = []
    for place, (optimizer, label) in enumerate(_LABELS.items()):
        best = [line for line in run.results["best_rates"] if line["optimizer"] == optimizer]
        logarithms = np.log2(
            [[line["best_rate"] for line in best if line["noise_multiplier"] == noise] for noise in noises]
        )
        relative = logarithms - logarithms[0].mean()
        slope = run.results["slopes"][optimizer]
        text = f"{label}: slope {slope['mean']:.2f} [{slope['low']:.2f}, {slope['high']:.2f}]"
        axes.plot(noises, 2.0 ** relative.mean(axis=1), "o-", color=_COLORS[optimizer], markersize=5, label=text)
        for noise, values, means in zip(noises, relative, logarithms.mean(axis=1), strict=True):
            # The optimizers are shifted a little, so that their dots do not hide each other.
            shifted = np.full(len(values), noise * 2.0 ** (0.07 * (place - 1)))
            axes.plot(shifted, 2.0**values, ".", color=_COLORS[optimizer], alpha=0.35, markersize=4)
            rows.append(
                {
                    "optimizer": optimizer,
                    "noise_multiplier": noise,
                    "epsilon": epsilons[noise],
                    "best_rate": float(2.0**means),
                    "relative": float(2.0 ** values.mean()),
                    "seeds": len(values),
                }
            )
    axes.plot(noises, [noises[0] / noise for noise in noises], ":", color="0.4", label="slope -1")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(noises, [rf"{noise:g}" "\n" rf"($\varepsilon$ = {epsilons[noise]:.3g})" for noise in noises])
    axes.minorticks_off()
    axes.set_xlabel(r"noise multiplier $\sigma$")
    axes.set_ylabel("best learning rate over that at the least noise")
    axes.legend(fontsize=7.5)
    return canvas.save(figure, rows, directory, name)
