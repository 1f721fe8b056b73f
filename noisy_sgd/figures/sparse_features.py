"""Distance to the sparse solution over the length of a phase of large steps, from experiments/sparse_features.

    sparse_features.draw(records.read("results/sparse_features/large_steps"), pathlib.Path("results/figures"))

Tested by tests/studies/sparse_features_test.py.
"""

import pathlib

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records
from noisy_sgd.figures import canvas


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "sparse_features") -> list[pathlib.Path]:
    """Every data set as a thin line and the median; left the distance, right the effective alpha."""
    figure = figures.Figure(figsize=(7.4, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    found, rows = run.results["summary"], []
    lengths = found["lengths"]
    labels = {"squared_distance": r"final $\|\beta-\beta^*\|^2$", "alpha": r"$\alpha_\infty$, geometric mean"}
    for axes, (key, label) in zip(panels, labels.items(), strict=True):
        values = np.array([line[key] for line in run.metrics], np.float64)
        axes.plot(range(len(lengths)), values.T, color=canvas.COLORS["sgd"], alpha=0.25, linewidth=0.8)
        axes.plot(range(len(lengths)), np.array(found[key], np.float64), "ko-", markersize=4, label="median")
        axes.set_yscale("log")
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        axes.set_xlabel("large steps before the small ones")
        axes.set_ylabel(label)
        rows += [
            {"quantity": key, "data_seed": line["data_seed"], "large_steps": length, "value": value}
            for line in run.metrics
            for length, value in zip(lengths, line[key], strict=True)
        ]
    lost = ", ".join(map(str, found["diverged"]))
    figure.suptitle(f"{found['data_sets']} data sets; diverged runs: {lost} of {found['runs']} each", fontsize=9)
    panels[0].legend(fontsize=7)
    return canvas.save(figure, rows, directory, name)
