"""Distances, alpha and tilt with noise that is correlated over steps, from experiments/correlated_noise.

    correlated_noise.draw_distances(records.read("results/correlated_noise/diagonal_linear"), folder)

Tested by tests/studies/correlated_noise_test.py.
"""

import pathlib
from typing import Any

import numpy as np
from matplotlib import figure as figures
from matplotlib import ticker

from noisy_sgd import records
from noisy_sgd.figures import canvas

_LOOKS = {
    "independent": ("#0072B2", "independent"),
    "equal": ("#009E73", "equal variance of a step"),
    "nominal": ("#D55E00", "nominal scale"),
    "tuned": ("#CC79A7", "tuned"),
}
_DASHES = {0.5: ":", 0.9: "-", 0.99: "--"}
_SIGMA = 0.5


@canvas.styled
def draw_distances(
    run: records.Record, directory: pathlib.Path, name: str = "correlated_noise_distances"
) -> list[pathlib.Path]:
    """Median distance to beta* over SGD's by the step size, one panel for each alpha; a lost arm is left out."""
    table = run.results["table"]
    alphas = sorted({line["alpha"] for line in table}, reverse=True)
    figure = figures.Figure(figsize=(4.2 * len(alphas), 4.2), layout="constrained")
    panels, rows = figure.subplots(1, len(alphas), squeeze=False)[0], []
    for axes, alpha in zip(panels, alphas, strict=True):
        here = [line for line in table if line["alpha"] == alpha]
        steps = sorted({line["relative_step"] for line in here})
        plain = {line["relative_step"]: line for line in here if (line["arm"], line["scale"]) == ("independent", 0.0)}
        for kind, value, scale in dict.fromkeys(_curve(line) for line in here if line["arm"] != "same_variance"):
            if kind == "independent" and scale != _SIGMA:
                continue
            lines = {line["relative_step"]: line for line in here if _curve(line) == (kind, value, scale)}
            ratios = [_ratio(lines[step], plain[step]) for step in steps]
            color, label = _LOOKS[kind]
            shown = label if kind == "independent" else rf"{label}, $\lambda$ = {value:g}"
            axes.plot(steps, ratios, _DASHES.get(value, "-"), color=color, marker="o", markersize=3, label=shown)
            rows += [
                {
                    "alpha": alpha,
                    "relative_step": step,
                    "arm": kind,
                    "lambda": value,
                    "squared_distance_over_sgd": ratio,
                    "diverged": lines[step]["diverged"],
                    "wins": lines[step]["wins"],
                    "data_sets": lines[step]["data_sets"],
                }
                for step, ratio in zip(steps, ratios, strict=True)
            ]
        axes.axhline(1.0, color="0.5", linewidth=0.8)
        axes.set_yscale("log")
        axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
        axes.set_title(rf"$\alpha$ = {alpha:g}", fontsize=9)
    panels[0].set_ylabel(r"median of $\|\beta-\beta^*\|^2$ over SGD's")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6.5)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_pairs(
    run: records.Record, directory: pathlib.Path, name: str = "correlated_noise_pairs"
) -> list[pathlib.Path]:
    """Alpha against tilt, medians over data sets, at each of three step sizes: less of both is better."""
    table = [
        line for line in run.results["table"] if line["alpha"] == max(one["alpha"] for one in run.results["table"])
    ]
    steps = sorted({line["relative_step"] for line in table})
    chosen = [steps[index] for index in np.unique(np.linspace(0, len(steps) - 1, 3).round().astype(int))]
    figure = figures.Figure(figsize=(3.2 * len(chosen), 3.9), layout="constrained")
    panels, rows = figure.subplots(1, len(chosen), squeeze=False)[0], []
    for axes, step in zip(panels, chosen, strict=True):
        here = [line for line in table if line["relative_step"] == step and _drawable(line)]
        for kind, (color, label) in _LOOKS.items():
            of_kind = [line for line in here if line["arm"] == kind]
            style = "o-" if kind == "independent" else "s"
            axes.plot(
                [line["geometric_alpha"] for line in of_kind],
                [line["tilt_norm"] for line in of_kind],
                style,
                color=color,
                markersize=4,
                label=label,
            )
            for line in of_kind:
                text = f"{line['scale']:g}" if kind == "independent" else f"{line['value']:g}"
                place = (line["geometric_alpha"], line["tilt_norm"])
                axes.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize=5.5, color=color)
                rows.append(
                    {
                        "relative_step": step,
                        "arm": kind,
                        "lambda": line["value"],
                        "scale": line["scale"],
                        "geometric_alpha": line["geometric_alpha"],
                        "tilt_norm": line["tilt_norm"],
                    }
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        # Labels between the powers of ten would overlap.
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel(r"$\alpha_\infty$, geometric mean")
        axes.set_title(rf"$\gamma\lambda_{{\max}}$ = {step:.3g}", fontsize=9)
    panels[0].set_ylabel(r"$\|r_\infty\|$")
    figure.suptitle(r"Numbers: $\sigma$ of independent noise, $\lambda$ of correlated noise", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    return canvas.save(figure, rows, directory, name)


def _curve(line: dict[str, Any]) -> tuple[str, float, float]:
    """Arm and lambda; of independent noise the scale too, which for "tuned" differs from step size to step size."""
    return line["arm"], line["value"], line["scale"] if line["arm"] == "independent" else 0.0


def _ratio(line: dict[str, Any], plain: dict[str, Any]) -> float:
    # An infinite median is recorded as null.
    values = [one["squared_distance"] for one in (line, plain)]
    return float("nan") if None in values else values[0] / values[1]


def _drawable(line: dict[str, Any]) -> bool:
    # Most runs of an arm may be lost, and its alpha beyond float64.
    alpha, tilt = line["geometric_alpha"], line["tilt_norm"]
    return line["diverged"] < 0.5 and alpha is not None and alpha > 1e-12 and bool(tilt)
