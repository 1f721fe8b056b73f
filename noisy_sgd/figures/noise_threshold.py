"""Where noise helps, where it hurts and where runs diverge, and why: three figures of experiments/noise_threshold.

    draw_map      change of the final distance by noise over (step size, sigma), the share of diverged runs in every
                  cell, the best sigma of every step size, and the edge of mean-square stability
    draw_best     what the best sigma of every step size changes on every data set, and held out
    draw_terms    the two competing terms against the noise, alone and together

Each takes a `records.Record` whose metrics are the experiment's lines and whose results hold its `gains` and `best`:

    noise_threshold.draw_map(records.read("results/noise_threshold/map"), pathlib.Path("results/figures"))

Tested by tests/studies/noise_threshold_test.py.
"""

import pathlib
from typing import Any

import numpy as np
from matplotlib import colors, patches
from matplotlib import figure as figures

from noisy_sgd import records
from noisy_sgd.figures import canvas

_LOST = "#bbbbbb"
_SGD_LINE = "#888888"
_EXCHANGES = {
    "run_distance": ("both: the run itself", "#000000", "-"),
    "alpha_alone": ("its alpha alone", "#009E73", "--"),
    "tilt_alone": ("its tilt alone", "#D55E00", ":"),
}
_MEASURED = {
    "squared_distance": (r"run to $\beta^*$", "#000000", "-"),
    "minimizer_distance": (r"argmin $\phi_\alpha$ to $\beta^*$", "#009E73", "--"),
    "displacement": (r"argmin $\phi_\alpha$ to argmin $\phi_\alpha-\langle r_\infty,\cdot\rangle$", "#D55E00", ":"),
}


@canvas.styled
def draw_map(run: records.Record, directory: pathlib.Path, name: str = "noise_threshold") -> list[pathlib.Path]:
    """log10 of the final distance over SGD's at the same step, median over data sets; gray where half are lost."""
    steps, noises = _axes(run)
    figure, (axes,) = canvas.panels(width=6.2, height=4.2)
    gain, share, rows = np.zeros((len(noises), len(steps))), np.zeros((len(noises), len(steps))), []
    found = {(line["relative_step"], line["noise_scale"]): line for line in run.results["gains"]}
    for column, step in enumerate(steps):
        for row, noise in enumerate(noises):
            lines = _case(run, step, noise)
            diverged, runs = (sum(line[key] for line in lines) for key in ("diverged", "num_runs"))
            share[row, column] = diverged / runs
            case = found.get((step, noise))
            if case:
                # An infinite change is recorded as null.
                gain[row, column] = np.nan if case["change"] is None else case["change"]
            rows.append(
                {
                    "relative_step": step,
                    "noise_scale": noise,
                    "median_log10_change": float(gain[row, column]),
                    "median_squared_distance": _median(lines, "squared_distance"),
                    "runs": runs,
                    "diverged": diverged,
                    "data_sets": len(lines),
                    "wins": case["wins"] if case else "",
                    "p": case["p"] if case else "",
                }
            )
    limit = max(0.1, float(np.nanmax(np.abs(gain))))
    axes.set_facecolor(_LOST)
    # Linear near 0, where most values are.
    scale = colors.SymLogNorm(0.1, vmin=-limit, vmax=limit, base=10)
    image = axes.imshow(gain, origin="lower", aspect="auto", cmap="RdBu_r", norm=scale)
    for (row, column), part in np.ndenumerate(share):
        texts = [f"{100 * part:.0f}% div."] if part else []
        case = found.get((steps[column], noises[row]))
        if case and not np.isnan(gain[row, column]):
            texts.insert(0, f"{case['wins']}/{case['data_sets']}")
        dark = abs(scale(gain[row, column]) - 0.5) > 0.35 if np.isfinite(gain[row, column]) else False
        axes.annotate(
            "\n".join(texts), (column, row), ha="center", va="center", fontsize=6, color="white" if dark else "black"
        )
    best = {line["relative_step"]: line["best_noise_scale"] for line in run.results["best"]}
    for column, step in enumerate(steps):
        place = (column - 0.5, noises.index(best[step]) - 0.5)
        axes.add_patch(patches.Rectangle(place, 1, 1, fill=False, edgecolor="black", linewidth=1.5, clip_on=False))
    edges = [
        _median([line for line in run.metrics if line["noise_scale"] == noise], "relative_edge") for noise in noises
    ]
    columns = np.interp(edges, steps, range(len(steps)), left=np.nan, right=np.nan)
    axes.plot(
        columns, range(len(noises)), "k--", linewidth=1.2, alpha=0.5, label="edge of mean-square stability (median)"
    )
    axes.plot([], [], "s", markerfacecolor="none", markeredgecolor="black", label=r"best $\sigma$ of a step size")
    axes.grid(False)
    axes.set_xticks(range(len(steps)), [f"{step:.3g}" for step in steps])
    axes.set_yticks(range(len(noises)), [f"{noise:g}" for noise in noises])
    axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
    axes.set_ylabel(r"noise scale $\sigma$ (0: SGD)")
    bar = figure.colorbar(image, ax=axes, label=r"$\log_{10}$ of final $\|\beta-\beta^*\|^2$ over SGD's, median")
    ticks = [tick for tick in (-10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10) if abs(tick) <= limit]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    first = run.results["gains"][0]
    axes.set_title(
        f"Blue: noise helps; k/{first['data_sets']}: data sets on which it does; div.: runs diverged "
        f"(counted as lost);\ngray: half of the data sets or more are lost",
        fontsize=8,
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_best(run: records.Record, directory: pathlib.Path, name: str = "noise_threshold_best") -> list[pathlib.Path]:
    """Distance over SGD's with the best sigma, one dot per data set; medians, also with held-out data sets."""
    figure, (axes,) = canvas.panels(width=5.4, height=3.6)
    rows = [dict(line) for line in run.results["best"]]
    for column, row in enumerate(rows):
        noisy, plain = (
            [
                np.inf if line["judged_distance"] is None else line["judged_distance"]
                for line in sorted(_case(run, row["relative_step"], noise), key=lambda line: line["data_seed"])
            ]
            for noise in (row["best_noise_scale"], 0.0)
        )
        pairs = [(value, base) for value, base in zip(noisy, plain, strict=True) if np.isfinite([value, base]).all()]
        shifts = column + np.linspace(-0.15, 0.15, len(pairs))
        ratios = [value / base for value, base in pairs]
        axes.plot(shifts, ratios, ".", color=canvas.COLORS["noisy_sgd"], alpha=0.5)
        lost = sum(np.isinf(value) and np.isfinite(base) for value, base in zip(noisy, plain, strict=True))
        won = sum(np.isfinite(value) and np.isinf(base) for value, base in zip(noisy, plain, strict=True))
        texts = [
            rf"$\sigma$ = {row['best_noise_scale']:g}",
            f"{row['held_out_wins']}/{row['data_sets']}",
            f"{lost}, {won}",
        ]
        place = (column, 1.01)
        axes.annotate(
            "\n".join(texts), place, xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=6.5
        )
        row |= {"lost_by_noise": int(lost), "lost_by_sgd": int(won)}
    for key, look, label in (
        ("change", "k_", "median"),
        ("held_out_change", "kx", "median, sigma chosen without the data set"),
    ):
        values = [np.nan if row[key] is None else 10 ** row[key] for row in rows]
        axes.plot(range(len(rows)), values, look, markersize=14 if look == "k_" else 6, label=label)
    axes.axhline(1.0, color=_SGD_LINE, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(rows)), [f"{row['relative_step']:.3g}" for row in rows])
    axes.set_xlabel(r"step size $\gamma\lambda_{\max}$")
    axes.set_ylabel(r"final $\|\beta-\beta^*\|^2$ over SGD's" "\n" r"with the best $\sigma$")
    axes.set_title(
        r"Above: best $\sigma$; data sets on which it helps when chosen on the others;"
        "\ndata sets lost to divergence by noise alone, by SGD alone",
        fontsize=7.5,
        pad=34,
    )
    axes.plot([], [], ".", color=canvas.COLORS["noisy_sgd"], alpha=0.5, label="a data set")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_terms(run: records.Record, directory: pathlib.Path, name: str = "noise_threshold_terms") -> list[pathlib.Path]:
    """Top: distances of the two terms. Bottom: distance over SGD's when one of alpha and tilt is exchanged."""
    steps, noises = _axes(run)
    chosen = [steps[index] for index in np.unique(np.linspace(0, len(steps) - 2, 3).round().astype(int))]
    figure = figures.Figure(figsize=(3.0 * len(chosen), 5.4), layout="constrained")
    panels = figure.subplots(2, len(chosen), sharey="row", sharex=True, squeeze=False)
    rows, data_sets = [], len({line["data_seed"] for line in run.metrics})
    for (above, below), step in zip(panels.T, chosen, strict=True):
        for axes, terms in ((above, _MEASURED), (below, _EXCHANGES)):
            for term, (label, color, dashes) in terms.items():
                values = [_values(_case(run, step, noise), term, axes is below) for noise in noises]
                # The median of a few survivors means nothing, and a median of 0 has no logarithm.
                medians = [
                    float(np.median(value)) if 2 * value.size >= data_sets and np.median(value) else float("nan")
                    for value in values
                ]
                axes.plot(noises, medians, dashes, color=color, marker="o", markersize=3, label=label)
                rows += [
                    {
                        "relative_step": step,
                        "noise_scale": noise,
                        "term": term,
                        "median": median,
                        "data_sets": value.size,
                    }
                    for noise, value, median in zip(noises, values, medians, strict=True)
                ]
            axes.set_yscale("log")
        below.axhline(1.0, color=_SGD_LINE, linewidth=0.8)
        below.set_xlabel(r"noise scale $\sigma$ (0: SGD)")
        above.set_title(rf"$\gamma\lambda_{{\max}}$ = {step:.3g}", fontsize=9)
    panels[0, 0].set_ylabel("squared distance")
    panels[1, 0].set_ylabel(r"$\|\beta-\beta^*\|^2$ over SGD's" "\nwith, of a Noisy-SGD run,")
    panels[0, 0].legend(fontsize=6)
    panels[1, 0].legend(fontsize=6)
    figure.suptitle(
        "Medians over data sets, of runs that did not diverge, where at least half of the data sets have one",
        fontsize=8,
    )
    return canvas.save(figure, rows, directory, name)


def _axes(run: records.Record) -> tuple[list[float], list[float]]:
    steps, noises = (sorted({line[key] for line in run.metrics}) for key in ("relative_step", "noise_scale"))
    return steps, noises


def _case(run: records.Record, step: float, noise: float) -> list[dict[str, Any]]:
    return [line for line in run.metrics if (line["relative_step"], line["noise_scale"]) == (step, noise)]


def _values(lines: list[dict[str, Any]], key: str, over_sgd: bool = False) -> np.ndarray:
    kept = [line for line in lines if line[key] is not None]
    return np.array([line[key] / (line["sgd_distance"] if over_sgd else 1.0) for line in kept])


def _median(lines: list[dict[str, Any]], key: str) -> float:
    values = _values(lines, key)
    return float(np.median(values)) if values.size else float("nan")
