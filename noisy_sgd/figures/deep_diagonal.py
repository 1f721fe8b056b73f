"""Depths 2, 3 and 4 under GD, SGD and Noisy-SGD: figures of experiments/deep_diagonal, one panel per depth.

    draw_distances    final distance to beta* against the step size, with the counts of wins and of diverged runs
    draw_alpha        how far noise shrinks the effective alpha, measured and by its formula

Each takes a `records.Record` whose metrics are the experiment's lines and whose results hold its `order`:

    deep_diagonal.draw_distances(records.read("results/deep_diagonal/depths"), pathlib.Path("results/figures"))

Tested by tests/studies/deep_diagonal_test.py.
"""

import pathlib
from typing import Any

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_STEP_LABEL = "step size / SGD's edge of\nmean-square stability"


@canvas.styled
def draw_distances(run: records.Record, directory: pathlib.Path, name: str = "deep_diagonal") -> list[pathlib.Path]:
    """Median over data sets of the final squared distance, with quartiles; wins of the strongest noise above."""
    depths, fractions, algorithms = _axes(run)
    figure, panels = canvas.panels(len(depths), width=2.9, height=3.9)
    rows = []
    for axes, depth in zip(panels, depths, strict=True):
        for algorithm, noise in algorithms:
            lines = [_case(run, depth, fraction, algorithm, noise) for fraction in fractions]
            low, median, high = np.array([_quartiles(case, "squared_distance") for case in lines]).T
            look = {"color": _color(algorithms, algorithm, noise), "label": _label(algorithm, noise)}
            axes.plot(fractions, median, marker="o", markersize=3, linewidth=1.3, **look)
            axes.fill_between(fractions, low, high, color=look["color"], alpha=0.12, linewidth=0)
            rows += [
                {
                    "depth": depth,
                    "fraction": fraction,
                    "algorithm": algorithm,
                    "noise_scale": noise,
                    "median": float(middle),
                    "lower_quartile": float(bottom),
                    "upper_quartile": float(top),
                    "data_sets": len(case),
                    "runs": sum(line["num_runs"] for line in case),
                    "diverged": sum(line["diverged"] for line in case),
                    "unfinished": sum(line["unfinished"] for line in case),
                }
                for fraction, case, bottom, middle, top in zip(fractions, lines, low, median, high, strict=True)
            ]
        for line in run.results["order"]:
            if line["depth"] == depth:
                lost = f"{line['sgd_diverged']}, {line['noisy_sgd_diverged']}"
                text = f"{line['noisy_better']}/{line['noisy_better_of']}\n{lost}"
                place = (line["fraction"], 1.02)
                axes.annotate(text, place, xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=6)
        axes.set_yscale("log")
        axes.set_xticks(fractions, [f"{fraction:g}" for fraction in fractions])
        axes.set_xlabel(_STEP_LABEL)
        alpha = next(line["alpha"] for line in run.metrics if line["depth"] == depth)
        axes.set_title(rf"depth {depth}, $\alpha$ = {alpha:.3g}", fontsize=9, pad=22)
    panels[0].set_ylabel(r"final $\|\beta-\beta^*\|_2^2$")
    _legend(figure, panels[0], len(algorithms))
    order, first = run.results["order"][0], run.metrics[0]
    figure.suptitle(
        f"Medians and quartiles over {order['data_sets']} data sets, {first['num_steps']:,} steps. Above each step: "
        f"data sets where Noisy-SGD ($\\sigma$ = {order['noise_scale']:g}) beats SGD;\n"
        f"runs diverged of SGD, of Noisy-SGD, of {order['sgd_runs']} each; medians are over the others",
        fontsize=7.5,
    )
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_alpha(run: records.Record, directory: pathlib.Path, name: str = "deep_diagonal_alpha") -> list[pathlib.Path]:
    """ln(initial / effective alpha) against the step size: dots measured, dashes by the formula; medians."""
    depths, fractions, algorithms = _axes(run)
    algorithms = [pair for pair in algorithms if pair[0] != "gd"]
    figure, panels = canvas.panels(len(depths), width=2.7, height=3.3)
    rows = []
    for axes, depth in zip(panels, depths, strict=True):
        for algorithm, noise in algorithms:
            lines = [_case(run, depth, fraction, algorithm, noise) for fraction in fractions]
            measured, formula = (
                [-np.log(_quartiles(case, key)[1]) for case in lines] for key in ("alpha_ratio", "alpha_ratio_formula")
            )
            color = _color(algorithms, algorithm, noise)
            axes.plot(fractions, measured, "o", color=color, markersize=4, label=_label(algorithm, noise))
            axes.plot(fractions, formula, "--", color=color, linewidth=1)
            rows += [
                {
                    "depth": depth,
                    "fraction": fraction,
                    "noise_scale": noise,
                    "measured": float(value),
                    "formula": float(predicted),
                    "data_sets": len(case),
                }
                for fraction, case, value, predicted in zip(fractions, lines, measured, formula, strict=True)
            ]
        axes.set_yscale("log")
        axes.set_xticks(fractions, [f"{fraction:g}" for fraction in fractions])
        axes.set_xlabel(_STEP_LABEL)
        axes.set_title(f"depth {depth}", fontsize=9)
    panels[0].set_ylabel("ln(initial / effective alpha)\noutside the support, median")
    panels[0].plot([], [], "--", color="black", linewidth=1, label="formula")
    _legend(figure, panels[0], len(algorithms) + 1)
    return canvas.save(figure, rows, directory, name)


def _axes(run: records.Record) -> tuple[list[int], list[float], list[tuple[str, float]]]:
    pairs = sorted({(line["noise_scale"], line["algorithm"]) for line in run.metrics})
    depths, fractions = (sorted({line[key] for line in run.metrics}) for key in ("depth", "fraction"))
    return depths, fractions, [(algorithm, noise) for noise, algorithm in pairs]


def _case(run: records.Record, depth: int, fraction: float, algorithm: str, noise: float) -> list[dict[str, Any]]:
    wanted = {"depth": depth, "fraction": fraction, "algorithm": algorithm, "noise_scale": noise}
    return [line for line in run.metrics if wanted.items() <= line.items()]


def _quartiles(lines: list[dict[str, Any]], key: str) -> np.ndarray:
    values = [line[key] for line in lines if line[key] is not None]
    return np.quantile(values, [0.25, 0.5, 0.75]) if values else np.full(3, np.nan)


def _color(algorithms: list[tuple[str, float]], algorithm: str, noise: float) -> Any:
    if algorithm != "noisy_sgd":
        return canvas.COLORS["sgd"] if algorithm == "sgd" else "#555555"
    noises = [one for name, one in algorithms if name == "noisy_sgd"]
    strength = (1 + noises.index(noise)) / len(noises)
    strong = np.array([int(canvas.COLORS["noisy_sgd"][index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return tuple(1 - (1 - strong) * (0.3 + 0.7 * strength))


def _label(algorithm: str, noise: float) -> str:
    if algorithm == "gd":
        return "GD"
    return canvas.LABELS[algorithm] + (rf", $\sigma$ = {noise:g}" if noise else "")


def _legend(figure: Any, axes: Any, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=8)
