"""The error of the SDE as a model of the algorithm, against the step size, from experiments/sde_error.

    draw_weak      means and covariances, exact, under the plain and the modified drift
    draw_strong    root mean square distance on one Brownian path

Each takes `records.Record`s whose results are those of studies/sde_error. The lines of one record hold all of them:

    record = records.read("results/sde_error/orders")
    weak, *strong = (dataclasses.replace(record, results=line) for line in record.metrics)
    sde_error.draw_weak(weak, pathlib.Path("results/figures"))
    sde_error.draw_strong(strong, pathlib.Path("results/figures"))

Tested by tests/studies/sde_error_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_COLORS = {"surrogate": "#0072B2", "sampled": "#D55E00"}
_DASHES = {"plain": "o-", "modified": "s--"}


@canvas.styled
def draw_weak(run: records.Record, directory: pathlib.Path, name: str = "sde_weak_error") -> list[pathlib.Path]:
    """Errors of mean and covariance over the step size, log-log, with fitted orders in the legend."""
    lines, orders = run.results["lines"], run.results["orders"]
    steps = [line["relative_step"] for line in lines]
    figure, all_axes = canvas.panels(2, width=4.0)
    rows = []
    for axes, moment in zip(all_axes, ("mean", "covariance"), strict=True):
        for algorithm, color in _COLORS.items():
            for drift, dashes in _DASHES.items():
                key = f"{algorithm}_{drift}_{moment}"
                label = f"{algorithm} steps, {drift} drift: order {orders[key]:.2f}"
                errors = [line[key] for line in lines]
                axes.plot(steps, errors, dashes, color=color, markersize=3, label=label)
                rows += [
                    {"moment": moment, "algorithm": algorithm, "drift": drift, "relative_step": step, "error": error}
                    for step, error in zip(steps, errors, strict=True)
                ]
        _logarithmic(axes, steps)
        axes.set_title(f"weak error of the {moment}", fontsize=9)
        axes.legend(fontsize=6)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_strong(
    runs: list[records.Record], directory: pathlib.Path, name: str = "sde_strong_error"
) -> list[pathlib.Path]:
    """Pathwise errors over the step size, log-log, one line per model, with fitted orders and intervals."""
    figure, (axes,) = canvas.panels(width=4.8)
    rows = []
    for run, color in zip(runs, _COLORS.values(), strict=False):
        found = run.results
        steps, errors = (
            np.array([line[key] for line in found["lines"]], np.float64) for key in ("relative_step", "error")
        )
        # Values that are not finite are recorded as null.
        order, low, high = np.array([found["order"], *found["interval"]], np.float64)
        label = f"{found['model'].replace('_', ' ')}: order {order:.2f} [{low:.2f}, {high:.2f}]"
        axes.plot(steps, errors, "o-", color=color, markersize=3, label=label)
        rows += [{"model": found["model"], **line} for line in found["lines"]]
    _logarithmic(axes, steps)
    axes.set_ylabel("root mean square distance")
    axes.set_title(f"Gaussian surrogate against its SDE, {runs[0].results['num_paths']} paths", fontsize=9)
    axes.legend(fontsize=7)
    return canvas.save(figure, rows, directory, name)


def _logarithmic(axes, steps):
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(steps, [f"{step:g}" for step in steps])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
