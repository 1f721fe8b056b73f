"""Lower bounds on epsilon against the epsilon that DP-SGD claims, from experiments/audit.

    audit.draw(records.read("results/audit/digits"), pathlib.Path("results/figures"))

Tested by tests/experiments/audit_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_TITLES = {"one run": "one run with many canaries", "many runs": "many runs with one canary"}


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "audit") -> list[pathlib.Path]:
    """One panel per audit: a point per bound, a dash for the provable maximum, and a line for the claim."""
    audits = [audit for audit in _TITLES if any(line["audit"] == audit for line in run.metrics)]
    epsilons = sorted({line["epsilon"] for line in run.metrics})
    figure, all_axes = canvas.panels(len(audits), width=4.0)
    for axes, audit in zip(all_axes, audits, strict=True):
        lines = [line for line in run.metrics if line["audit"] == audit]
        positions = np.arange(len(epsilons))
        edges = positions - 0.4, positions + 0.4
        axes.hlines(epsilons, *edges, colors="black", linestyles="--", linewidth=1, label="epsilon that DP-SGD claims")
        for algorithm, shift in (("dp_sgd", -0.15), ("noisy_sgd", 0.15)):
            case = [line for line in lines if line["algorithm"] == algorithm]
            axes.plot(
                [epsilons.index(line["epsilon"]) + shift for line in case],
                [line["epsilon_lower_bound"] for line in case],
                canvas.MARKERS[algorithm],
                color=canvas.COLORS[algorithm],
                markersize=4,
                alpha=0.6,
                label=f"{canvas.LABELS[algorithm]}, bound",
            )
            highest = {line["epsilon"]: line["largest_bound"] for line in case}
            axes.plot(
                [epsilons.index(epsilon) + shift for epsilon in highest],
                list(highest.values()),
                "_",
                color=canvas.COLORS[algorithm],
                markersize=12,
                label="its provable maximum",
            )
        axes.set_xticks(positions, [f"{epsilon:g}" for epsilon in epsilons])
        axes.set_xlabel("epsilon that DP-SGD of this noise claims")
        axes.set_title(_TITLES[audit], fontsize=9)
        axes.legend(fontsize=7)
    all_axes[0].set_ylabel("lower bound on epsilon, 99.99 % confidence")
    columns = ("audit", "algorithm", "epsilon", "epsilon_lower_bound", "largest_bound")
    rows = [{column: line[column] for column in columns} for line in run.metrics]
    return canvas.save(figure, rows, directory, name)
