"""Escaping times from the sharp well over SGD's, one panel per kind of noise, from experiments/escaping_time.

    escaping_time.draw(records.read("results/escaping_time/two_wells"), pathlib.Path("results/figures"))

Tested by tests/studies/escaping_time_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_LABELS = {
    "momentum": "SGD with\nAdam's averaging",
    "adam_half": "Adam,\nhalf the rate",
    "adam": "Adam",
    "adam_double": "Adam,\ntwice the rate",
}
_SGD_LINE = "#888888"


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "escaping_time") -> list[pathlib.Path]:
    """Every problem as a dot, and the geometric mean with its 95 % interval."""
    tails = sorted({line["tail"] for line in run.metrics})
    figure, panels = canvas.panels(len(tails), width=3.6, height=3.6)
    rows = []
    for axes, tail in zip(panels, tails, strict=True):
        lines = [line for line in run.metrics if line["tail"] == tail]
        for column, arm in enumerate(_LABELS):
            ratios = [line["rates"]["sgd"] / line["rates"][arm] for line in lines]
            axes.plot(
                np.linspace(-0.2, 0.2, len(ratios)) + column, ratios, ".", color=canvas.COLORS["noisy_sgd"], alpha=0.5
            )
            (found,) = (
                line for line in run.results["summary"] if line["tail"] == tail and line["arms"] == [arm, "sgd"]
            )
            mean, low, high = np.exp(np.array([found[key] for key in ("mean", "low", "high")], np.float64))
            axes.errorbar(column, mean, [[mean - low], [high - mean]], fmt="k_", markersize=12, capsize=3)
            rows.append({"tail": tail, "arm": arm, "ratio": mean, "low": low, "high": high, "problems": len(ratios)})
        axes.axhline(1.0, color=_SGD_LINE, linewidth=0.8)
        axes.set_yscale("log")
        axes.set_xticks(range(len(_LABELS)), _LABELS.values(), fontsize=7)
        noise = "Gaussian noise" if tail == 2 else f"noise of tail index {tail:g}"
        axes.set_title(f"{noise}, {len(lines)} problems", fontsize=9)
    panels[0].set_ylabel("escaping time over SGD's")
    return canvas.save(figure, rows, directory, name)
