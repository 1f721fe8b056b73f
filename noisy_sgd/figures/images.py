"""Figures 1 and 2 of the paper, from recorded runs on images.

    draw_batch_size_sweep    final test accuracy against batch size; steps, learning rate and sigma / B fixed (Figure 1)
    draw_curves              test accuracy over the steps, one line per batch size (Figure 1)
    draw_norms               squared norms of the mini-batch gradient and of the noise over the steps (Figure 2)

Each takes the runs that `records.find` returns, and writes a PNG, a PDF and the CSV behind them:

    images.draw_batch_size_sweep(records.find("results/batch_size_sweep"), pathlib.Path("results/figures"))
"""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_APART = 0.08


def final_values(runs: Sequence[records.Record]) -> dict[str, dict[int, dict[int, float]]]:
    """Last recorded test accuracy by algorithm, seed and batch size; a run that diverged (null) counts as NaN."""
    found: dict[str, dict[int, dict[int, float]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in runs:
        algorithm = run.config["algorithm"]
        last = run.metrics[-1][run.accuracy]
        by_seed = found[algorithm["algorithm"]]
        by_seed[run.config["run"]["seed"]][algorithm["batch_size"]] = np.nan if last is None else last
    return {name: found[name] for name in canvas.LABELS if name in found}


@canvas.styled
def draw_batch_size_sweep(runs: Sequence[records.Record], directory: pathlib.Path) -> list[pathlib.Path]:
    """Final test accuracy against batch size: mean over seeds with its 95 % interval, every seed as a dot."""
    figure, (axes,) = canvas.panels()
    rows = []
    for name, by_seed in final_values(runs).items():
        sizes = sorted({size for by_size in by_seed.values() for size in by_size})
        values = {size: [100 * by_size[size] for by_size in by_seed.values() if size in by_size] for size in sizes}
        estimates = {size: statistics.estimate(values[size]) for size in sizes}
        means = [estimates[size].mean for size in sizes]
        bars = np.nan_to_num([estimates[size].half_width for size in sizes])
        # The algorithms are shifted a little, so that their bars do not hide each other.
        places = np.array(sizes) * 2.0 ** (_APART * list(canvas.LABELS).index(name) - _APART)
        look = {"color": canvas.COLORS[name], "marker": canvas.MARKERS[name], "markersize": 5}
        axes.errorbar(places, means, yerr=bars, label=canvas.LABELS[name], capsize=3, **look)
        for place, size in zip(places, sizes, strict=True):
            dots = axes.plot(
                [place] * len(values[size]), values[size], ".", color=look["color"], alpha=0.35, markersize=3
            )
            dots[0].set_zorder(1)
            found = estimates[size]
            rows.append(
                {
                    "algorithm": name,
                    "batch_size": size,
                    "seeds": found.count,
                    "test_accuracy_percent": found.mean,
                    "std": found.std,
                    "interval_low": found.low,
                    "interval_high": found.high,
                }
            )
    _logarithmic(axes, {row["batch_size"] for row in rows})
    axes.set_xlabel("batch size B (logarithmic)")
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title(_title(runs), fontsize=9)
    axes.legend()
    return canvas.save(figure, rows, directory, "batch_size_sweep")


@canvas.styled
def draw_curves(
    runs: Sequence[records.Record], directory: pathlib.Path, name: str = "batch_size_sweep_curves"
) -> list[pathlib.Path]:
    """Test accuracy over the steps, one panel per algorithm, one line per batch size: mean and standard deviation."""
    groups = _groups(runs)
    algorithms = [algorithm for algorithm in canvas.LABELS if any(key[0] == algorithm for key in groups)]
    sizes = sorted({size for _, size in groups})
    figure, all_axes = canvas.panels(len(algorithms), width=3.4)
    rows = []
    for algorithm, axes in zip(algorithms, all_axes, strict=True):
        for size in sizes:
            if (algorithm, size) in groups:
                group = groups[algorithm, size]
                curve = _curve(group, group[0].accuracy, scale=100)
                _band(axes, curve, color=_shade(sizes, size), label=f"B = {size}")
                rows += _rows(curve, algorithm, size, "test_accuracy_percent")
        axes.set_title(canvas.LABELS[algorithm], fontsize=9)
        axes.set_xlabel("step")
    all_axes[0].set_ylabel("test accuracy (%)")
    figure.legend(*_first_of_each_label(all_axes), loc="outside right center")
    figure.suptitle(_title(runs), fontsize=9)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_norms(
    runs: Sequence[records.Record], directory: pathlib.Path, name: str = "gradient_and_noise_norms"
) -> list[pathlib.Path]:
    """Squared norms of Noisy-SGD's mini-batch gradient and noise over the steps, one line per batch size (Figure 2)."""
    groups = {size: group for (algorithm, size), group in _groups(runs).items() if algorithm == "noisy_sgd"}
    if not groups:
        raise ValueError("`runs` must hold a run of noisy_sgd, whose norms Figure 2 shows. Received: none")
    figure, (axes,) = canvas.panels(width=6.2)
    rows = []
    for size in sorted(groups):
        gradient = _curve(groups[size], "squared_gradient_norm")
        noise = _curve(groups[size], "squared_noise_norm")
        _band(axes, gradient, color=_shade(sorted(groups), size), label=f"gradient, B = {size}")
        rows += _rows(gradient, "noisy_sgd", size, "squared_gradient_norm")
        rows += _rows(noise, "noisy_sgd", size, "squared_noise_norm")
    axes.plot(noise["step"], noise["mean"], "--", color="black", label=r"noise, $d\,(\sigma/B)^2$ on average")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("squared norm")
    figure.suptitle(f"Noisy-SGD, {_title(runs)}", fontsize=9)
    figure.legend(loc="outside right center")
    return canvas.save(figure, rows, directory, name)


def _first_of_each_label(all_axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    labeled = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labeled.setdefault(label, handle)
    return list(labeled.values()), list(labeled)


def _groups(runs: Sequence[records.Record]) -> dict[tuple[str, int], list[records.Record]]:
    groups = collections.defaultdict(list)
    for run in runs:
        groups[run.config["algorithm"]["algorithm"], run.config["algorithm"]["batch_size"]].append(run)
    return groups


def _curve(runs: Sequence[records.Record], value: str, scale: float = 1.0) -> dict[str, Any]:
    """Mean and standard deviation over runs at the steps where all of them recorded the value."""
    series = [{line["step"]: line[value] for line in run.metrics if line.get(value) is not None} for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in series)))
    values = scale * np.array([[one[step] for step in steps] for one in series], dtype=np.float64)
    return {"step": steps, "mean": values.mean(axis=0), "std": values.std(axis=0, ddof=1 if len(runs) > 1 else 0)}


def _band(axes: Any, curve: dict[str, Any], **look: Any) -> None:
    axes.plot(curve["step"], curve["mean"], linewidth=1.3, **look)
    low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
    axes.fill_between(curve["step"], low, high, color=look["color"], alpha=0.15, linewidth=0)


def _rows(curve: dict[str, Any], algorithm: str, size: int, quantity: str) -> list[dict[str, Any]]:
    return [
        {"algorithm": algorithm, "batch_size": size, "quantity": quantity, "step": step, "mean": mean, "std": std}
        for step, mean, std in zip(curve["step"], curve["mean"], curve["std"], strict=True)
    ]


def _shade(sizes: Sequence[int], size: int) -> Any:
    return matplotlib.colormaps["viridis"](0.9 * sizes.index(size) / max(1, len(sizes) - 1))


def _logarithmic(axes: Any, sizes: set[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.minorticks_off()


def _title(runs: Sequence[records.Record]) -> str:
    config = runs[0].config
    seeds = len({run.config["run"]["seed"] for run in runs})
    title = f"{config['data']['dataset']}, {config['model']['model']}, {config['algorithm']['num_steps']} steps"
    if config["data"].get("label_noise"):
        title = f"{title}, {100 * config['data']['label_noise']:g} % label noise"
    return f"{title}, {seeds} seeds" if seeds > 1 else title
