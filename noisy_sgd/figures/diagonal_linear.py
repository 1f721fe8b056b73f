"""Figures 3 to 7 of the paper, from recorded runs of diagonal linear networks.

    draw_curves      |beta_t - beta*|^2 over the iterations: mean and one standard deviation over runs (Figures 3, 6)
    draw_distance    the final distance against the noise sigma (Figure 5)
    draw_gap         the limit's distance to the minimizer of phi_alpha_inf against sigma (Figures 4 and 7)
    draw_order       final distances under GD, SGD and Noisy-SGD, one column per data set

Each takes a `records.Record` of experiments/diagonal_linear and writes a PNG, a PDF and the CSV behind them. Means
are over the runs that did not diverge; every figure shows how many did:

    run = records.read("results/diagonal_linear/figure_3")
    diagonal_linear.draw_curves(run, pathlib.Path("results/figures"), "figure_3")

Tested by tests/studies/diagonal_linear_test.py.
"""

import collections
import pathlib
from typing import Any

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_GRADIENT_DESCENT = "#555555"


@canvas.styled
def draw_curves(run: records.Record, directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Squared distance to beta* over the iterations, log-log: mean over runs that did not diverge, and one std."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in run.metrics:
        groups[line["algorithm"], line["noise_scale"]][line["step"]].append(line["squared_distance"])
    noises = sorted({noise for _, noise in groups})
    figure, (axes,) = canvas.panels(width=4.8)
    rows = []
    for (algorithm, noise), by_step in sorted(groups.items(), key=lambda item: (item[0][0] != "gd", item[0][1])):
        steps = np.array(sorted(by_step))
        values = np.array([_numbers(by_step[step]) for step in steps])
        kept = np.isfinite(values[-1])
        diverged = f", {int((~kept).sum())} of {kept.size} diverged" if algorithm != "gd" else ""
        if kept.any():
            mean, std = values[:, kept].mean(axis=1), values[:, kept].std(axis=1)
            color = _GRADIENT_DESCENT if algorithm == "gd" else _shade(noises, noise)
            # Styles, for readers without color: gradient descent is dotted, SGD dashed.
            look = {"color": color, "linewidth": 1.4, "linestyle": ":" if algorithm == "gd" else "-" if noise else "--"}
            positive = steps > 0
            axes.plot(steps[positive], mean[positive], **look, label=_label(algorithm, noise) + diverged)
            low = np.maximum(mean - std, mean / 100)
            axes.fill_between(
                steps[positive], low[positive], (mean + std)[positive], color=color, alpha=0.15, linewidth=0
            )
            rows += [
                {
                    "algorithm": algorithm,
                    "noise_scale": noise,
                    "step": int(step),
                    "mean": float(mean[row]),
                    "std": float(std[row]),
                    "runs": int(kept.sum()),
                    "diverged": int((~kept).sum()),
                }
                for row, step in enumerate(steps)
            ]
        else:
            style = "-" if noise else "--"
            axes.plot([], [], style, color=_shade(noises, noise), label=_label(algorithm, noise) + diverged)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel(r"$\|\beta_t-\beta^*\|_2^2$")
    axes.set_title(_title(run), fontsize=9)
    axes.legend(fontsize=7)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_distance(run: records.Record, directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Final squared distance to beta* against the noise scale."""
    lines = [line for line in run.results["finals"] if line["algorithm"] != "gd"]
    return _against_noise(run, lines, "squared_distance", r"$\|\beta_\infty-\beta^*\|_2^2$", directory, name)


@canvas.styled
def draw_gap(run: records.Record, directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Squared distance from the limit to the minimizer of phi at eq. (21)'s alpha, against the noise scale."""
    label = r"$\|\beta_\infty-\beta^*_{\alpha_\infty}\|_2^2$"
    return _against_noise(run, run.results["limits"], "untilted_formula", label, directory, name)


@canvas.styled
def draw_order(run: records.Record, directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Final squared distances of every run on every data set, diverged runs counted in the legend."""
    lines = run.metrics
    figure, (axes,) = canvas.panels(width=6.0)
    rows = []
    looks = {
        "gd": (_GRADIENT_DESCENT, "_", "GD"),
        **{n: (canvas.COLORS[n], ".", canvas.LABELS[n]) for n in ("sgd", "noisy_sgd")},
    }
    for shift, (algorithm, (color, marker, label)) in zip((0.0, -0.12, 0.12), looks.items(), strict=True):
        values = [np.atleast_1d(_numbers(np.atleast_1d(line[algorithm]))) for line in lines]
        lost = sum(int(np.isnan(value).sum()) for value in values)
        total = sum(value.size for value in values)
        for column, value in enumerate(values):
            axes.plot(np.full(value.size, column + shift), value, marker, color=color, markersize=7, alpha=0.7)
            finite = value[np.isfinite(value)]
            rows.append(
                {
                    "data_seed": lines[column]["data_seed"],
                    "algorithm": algorithm,
                    "median": float(np.median(finite)) if finite.size else float("nan"),
                    "runs": int(value.size),
                    "diverged": int(value.size - finite.size),
                }
            )
        axes.plot([], [], marker, color=color, label=f"{label}, {lost} of {total} diverged")
    axes.set_yscale("log")
    axes.set_xticks(range(len(lines)), [str(line["data_seed"]) for line in lines])
    axes.set_xlabel("data set (seed)")
    axes.set_ylabel(r"final $\|\beta-\beta^*\|_2^2$")
    axes.set_title(f"Every data set of the family, {_title(run, lines)}", fontsize=9)
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return canvas.save(figure, rows, directory, name)


def _against_noise(run, lines, value, label, directory, name):
    finals = [line for line in run.results["finals"] if line["algorithm"] != "gd"]
    figure, (axes,) = canvas.panels(width=4.8)
    rows = []
    for noise in sorted({line["noise_scale"] for line in finals}):
        group = [line for line in finals if line["noise_scale"] == noise]
        diverged = sum(line["diverged_at"] >= 0 for line in group)
        values = _numbers([line[value] for line in lines if line["noise_scale"] == noise])
        values = values[np.isfinite(values)]
        axes.annotate(
            f"{diverged}/{len(group)}", (noise, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=6
        )
        if values.size:
            axes.plot(
                np.full(values.size, noise), values, ".", color=canvas.COLORS["noisy_sgd"], alpha=0.3, markersize=4
            )
            rows.append(
                {
                    "noise_scale": noise,
                    "mean": float(values.mean()),
                    "std": float(values.std()),
                    "median": float(np.median(values)),
                    "runs": int(values.size),
                    "diverged": diverged,
                }
            )
    at, mean, median = (np.array([row[key] for row in rows]) for key in ("noise_scale", "mean", "median"))
    axes.plot(at, mean, "s-", color=canvas.COLORS["noisy_sgd"], markersize=4, label="mean over surviving runs")
    axes.plot(at, median, "--", color=_GRADIENT_DESCENT, label="median")
    axes.set_yscale("log")
    axes.set_xlabel(r"noise scale $\sigma$ (0: SGD)")
    axes.set_ylabel(label)
    axes.set_title(_title(run) + "\ndiverged / all runs above each noise scale\n", fontsize=8)
    axes.legend(fontsize=7)
    return canvas.save(figure, rows, directory, name)


def _title(run: records.Record, lines: list[dict[str, Any]] | None = None) -> str:
    first = (run.results["finals"] if lines is None else lines)[0]
    parts = [rf"$\gamma\lambda_{{\max}}$ = {first['relative_step']:.3g}"]
    if "alpha" in first:
        parts.insert(0, rf"$\alpha$ = {first['alpha']:g}")
    if "num_steps" in first:
        parts.append(f"{first['num_steps']:,} steps")
    return ", ".join(parts)


def _label(algorithm: str, noise: float) -> str:
    if algorithm == "gd":
        return "GD"
    return rf"{canvas.LABELS[algorithm]}" + (rf", $\sigma$ = {noise:g}" if noise else "")


def _shade(noises: list[float], noise: float) -> Any:
    if noise == 0:
        return canvas.COLORS["sgd"]
    position = 1.0 if len(noises) < 3 else sorted(noises).index(noise) / (len(noises) - 1)
    strong = np.array([0xD5, 0x5E, 0x00]) / 255
    return tuple(1 - (1 - strong) * (0.4 + 0.6 * position))


def _numbers(values: Any) -> np.ndarray:
    """Recorded numbers, with NaN in place of null."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
