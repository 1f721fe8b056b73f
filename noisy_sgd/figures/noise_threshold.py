"""Where noise helps, hurts and diverges, and why: two figures of experiments/noise_threshold.

    draw_map      median final distance over (step size, noise), less SGD's; the share of diverged runs in every cell
    draw_terms    the two competing terms against the noise: what a smaller alpha gives, and what r_inf costs

Each takes a `records.Record` whose metrics are the experiment's lines:

    noise_threshold.draw_map(records.read("results/noise_threshold"), pathlib.Path("results/figures"))
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_TERMS = {
    "squared_distance": ("limit to the sparse solution", "#000000", "-"),
    "minimizer_distance": (r"argmin $\phi_{\alpha_\infty}$ to the sparse solution", "#009E73", "--"),
    "gap": (r"limit to argmin $\phi_{\alpha_\infty}$", "#D55E00", ":"),
}


def draw_map(run: records.Record, directory: pathlib.Path, name: str = "noise_threshold") -> list[pathlib.Path]:
    """log10 of the median final distance over SGD's at the same step, with the share of diverged runs in each cell."""
    steps, noises = _axes(run)
    figure, (axes,) = canvas.panels(width=5.6, height=3.8)
    medians, diverged = np.full((2, len(noises), len(steps)), np.nan)
    rows = []
    for column, step in enumerate(steps):
        for row, noise in enumerate(noises):
            lines = _case(run, step, noise)
            lost = diverged[row, column] = _lost(lines)
            medians[row, column] = _median(lines, "squared_distance")
            rows.append(
                {
                    "relative_step": step,
                    "noise_scale": noise,
                    "median_squared_distance": float(medians[row, column]),
                    "diverged_share": float(lost),
                    "data_sets": len(lines),
                    "runs": sum(line["num_runs"] for line in lines),
                }
            )
    gain = np.log10(medians / medians[0])
    limit = max(1.0, float(np.nanmax(np.abs(gain))))
    axes.set_facecolor("#bbbbbb")
    image = axes.imshow(gain, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (row, column), share in np.ndenumerate(diverged):
        if share:
            ink = "white" if abs(gain[row, column]) > 0.7 * limit else "black"
            axes.annotate(f"{100 * share:.0f}%", (column, row), ha="center", va="center", fontsize=6, color=ink)
    axes.grid(False)
    axes.set_xticks(range(len(steps)), [f"{step:.2f}" for step in steps])
    axes.set_yticks(range(len(noises)), [f"{noise:g}" for noise in noises])
    axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
    axes.set_ylabel(r"noise scale $\sigma$")
    figure.colorbar(image, ax=axes, label=r"$\log_{10}$ of $\|\beta_\infty-\beta^*\|^2$ over SGD's")
    count = len({line["data_seed"] for line in run.metrics})
    axes.set_title(f"Blue: noise helps. Numbers: runs diverged; grey: most did ({count} data sets)", fontsize=8)
    return canvas.save(figure, rows, directory, name)


def draw_terms(run: records.Record, directory: pathlib.Path, name: str = "noise_terms") -> list[pathlib.Path]:
    """Medians over data sets of the limit's distance and of its two parts against the noise, a panel a step."""
    steps, noises = _axes(run)
    chosen = [steps[index] for index in np.unique(np.linspace(0, len(steps) - 1, 3).round().astype(int))]
    figure, all_axes = canvas.panels(len(chosen), width=2.9)
    rows = []
    for axes, step in zip(all_axes, chosen, strict=True):
        for term, (label, colour, dashes) in _TERMS.items():
            medians = [_median(_case(run, step, noise), term) for noise in noises]
            axes.plot(noises, medians, dashes, color=colour, marker="o", markersize=3, label=label)
            rows += [
                {"relative_step": step, "noise_scale": noise, "term": term, "median": median}
                for noise, median in zip(noises, medians, strict=True)
            ]
        axes.set_yscale("log")
        axes.set_xlabel(r"noise scale $\sigma$")
        axes.set_title(rf"$\gamma\lambda_{{\max}}$ = {step:.2f}", fontsize=9)
    all_axes[0].set_ylabel("squared distance, median")
    all_axes[0].legend(fontsize=6)
    return canvas.save(figure, rows, directory, name)


def _axes(run):
    return [sorted({line[key] for line in run.metrics}) for key in ("relative_step", "noise_scale")]


def _case(run, step, noise):
    return [line for line in run.metrics if (line["relative_step"], line["noise_scale"]) == (step, noise)]


def _lost(lines):
    return sum(line["diverged"] for line in lines) / sum(line["num_runs"] for line in lines)


def _median(lines, key):
    """Median over data sets; NaN where most runs diverged, whose survivors prove nothing."""
    values = [line[key] for line in lines if line[key] is not None]
    return float(np.median(values)) if values and _lost(lines) <= 0.5 else float("nan")
