"""The variance of mini-batch gradients times the batch size, over the batch size, from experiments/gradient_variance.

    gradient_variance.draw(records.read("results/gradient_variance/batch_sizes"), pathlib.Path("results/figures"))

Tested by tests/studies/gradient_variance_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_TITLES = {"linear": "least squares", "network": "two-layer linear network"}
_COLORS = ("#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7")


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "gradient_variance") -> list[pathlib.Path]:
    """Variance times B over its value at B = 1 at the first step: geometric means over problems, one line per step."""
    figure, panels = canvas.panels(2, width=3.6, height=3.4)
    rows = []
    sizes = np.array(run.results["batch_sizes"])
    for axes, (model, title) in zip(panels, _TITLES.items(), strict=True):
        variances = np.array([line[model]["variances"] for line in run.metrics])
        means = np.exp(np.mean(np.log(variances * sizes / variances[:, :1, :1]), axis=0))
        for step, (values, color) in enumerate(zip(means, _COLORS, strict=False)):
            axes.plot(sizes, values, "o-", color=color, markersize=3, label=f"step {step}")
            rows += [
                {"model": model, "step": step, "batch_size": int(size), "variance_times_batch_size": value}
                for size, value in zip(sizes, values.tolist(), strict=True)
            ]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("batch size B")
        axes.set_title(f"{title}, {len(variances)} problems", fontsize=9)
        axes.legend(fontsize=7)
    panels[0].set_ylabel(r"$B\,\mathbb{E}|g_B-\nabla L|^2$ over its first value")
    return canvas.save(figure, rows, directory, name)
