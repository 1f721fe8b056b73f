"""Rayleigh quotients of the error over the steps, and at the end on every data set, from experiments/direction_matters.

    direction_matters.draw(records.read("results/direction_matters/two_phases"), pathlib.Path("results/figures"))

Tested by tests/studies/direction_matters_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_LOOKS = {
    "sgd": (canvas.COLORS["sgd"], "o", "SGD, moderate rate first"),
    "small_sgd": ("#56B4E9", "^", "SGD, small rate throughout"),
    "gd": ("#555555", "s", "gradient descent, moderate rate first"),
}


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "direction_matters") -> list[pathlib.Path]:
    """Left: medians over data sets with quartiles, over the steps. Right: the end, one column per data set."""
    figure, (left, right) = canvas.panels(2, width=3.8, height=3.6)
    lines, rows = run.metrics, []
    steps = np.array(lines[0]["steps"])
    smallest, largest = (np.array([line[key] for line in lines]) for key in ("smallest", "largest"))
    order = np.argsort(largest)
    for algorithm, (color, marker, label) in _LOOKS.items():
        shares = np.array([line[algorithm] for line in lines]) / largest[:, None]
        low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75], axis=0)
        left.plot(steps, middle, color=color, label=label)
        left.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        right.plot(range(len(lines)), shares[order, -1], marker, color=color, markersize=3)
        rows += [
            {"algorithm": algorithm, "step": int(step), "median": a, "lower_quartile": b, "upper_quartile": c}
            for step, a, b, c in zip(steps, middle.tolist(), low.tolist(), high.tolist(), strict=True)
        ]
    right.plot(range(len(lines)), (smallest / largest)[order], "_", color="black", markersize=6)
    left.plot([], [], "_", color="black", label=r"$\lambda_{\min}/\lambda_{\max}$ (right)")
    left.axvline(lines[0]["num_steps"], color="black", linewidth=0.8, linestyle=":")
    left.set_xscale("symlog", linthresh=1)
    left.set_xlabel("step; the small rate begins at the dotted line")
    left.set_ylabel(r"$e^\top H e\,/\,(\lambda_{\max}|e|^2)$, $e=\theta-\theta_{LS}$")
    left.set_title("medians and quartiles over data sets", fontsize=9)
    right.set_xlabel("data set, by its largest eigenvalue")
    right.set_title("at the end", fontsize=9)
    left.set_xlim(left=0)
    left.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return canvas.save(figure, rows, directory, name)
