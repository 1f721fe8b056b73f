"""Four figures of experiments/clipping_or_noise: clipping against noise.

    draw_accuracy      final accuracy of the arms with tuned and equal learning rates; what the arms lose against width
    draw_directions    cosine to the ordinary gradient, fraction of examples clipped, distance travelled, along the run
    draw_switches      where a run that switches from one arm to another ends, and with which accuracy
    draw_lines         loss along the line from SGD's end to the end of the other arms

Each takes a `records.Record` whose metrics are the experiment's lines:

    clipping_or_noise.draw_accuracy(records.read("results/clipping_or_noise/mnist"), pathlib.Path("results/figures"))

Tested by tests/experiments/clipping_or_noise_test.py.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import figure as figures

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_LABELS = {"plain": "SGD", "noise": "noise only", "clip": "clip only", "noise_clip": "DP-SGD (both)"}
_COLORS = {"plain": "#0072B2", "noise": "#D55E00", "clip": "#CC79A7", "noise_clip": "#009E73"}
_MARKERS = {"plain": "o", "noise": "s", "clip": "v", "noise_clip": "^"}
_OTHERS = ("noise_clip", "noise", "clip")
_DASHES = ("-", "--", ":", "-.")
_SEEDS = "mean and 95 % interval over {} seeds"


@canvas.styled
def draw_accuracy(run: records.Record, directory: pathlib.Path, name: str = "clipping_or_noise") -> list[pathlib.Path]:
    """Left: final accuracy by arm, bound and rule. Right: SGD's accuracy less that of each arm, against width."""
    figure = figures.Figure(figsize=(9.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    width, clips, rows = run.config["width"], run.config["relative_clips"], []
    groups = [(clip, rule) for clip in clips for rule in ("tuned", "equal")]
    for place, (clip, rule) in enumerate(groups):
        lines = _final(run, rule, width, clip)
        for index, arm in enumerate(_LABELS):
            values = [_points(line["arms"][arm]["accuracy"]) for line in lines]
            averaged = [_points(line["arms"][arm]["averaged_accuracy"]) for line in lines]
            found, where = statistics.estimate(values), place + 0.17 * (index - 1.5)
            label = _LABELS[arm] if place == 0 else None
            _bar(left, where, found, arm, label=label)
            mean = statistics.estimate(averaged).mean
            label = "with the weights' average" if place == 0 and index == 0 else None
            left.plot(where + 0.06, mean, "_", color="black", markersize=7, label=label)
            rows.append(
                _row(found, panel="accuracy", width=width, relative_clip=clip, rule=rule, arm=arm, averaged=mean)
            )
    names = [f"C = {_multiple(clip)}\n{'tuned rates' if rule == 'tuned' else 'equal rates'}" for clip, rule in groups]
    left.set_xticks(range(len(groups)), names)
    left.set_ylabel("test accuracy after the last step (%)")
    for arm in _OTHERS:
        widths = sorted({line["width"] for line in _stage(run)})
        gaps = {
            width: statistics.estimate(
                [
                    _points(line["arms"]["plain"]["accuracy"]) - _points(line["arms"][arm]["accuracy"])
                    for line in _final(run, "tuned", width, clips[0])
                ]
            )
            for width in widths
        }
        shift = 2.0 ** (0.1 * (_OTHERS.index(arm) - 1))
        bars = np.nan_to_num([found.half_width for found in gaps.values()])
        look = {"color": _COLORS[arm], "marker": _MARKERS[arm], "markersize": 5, "capsize": 3}
        right.errorbar([shift * width for width in widths], [found.mean for found in gaps.values()], bars, **look)
        rows += [
            _row(found, panel="lost", width=width, relative_clip=clips[0], rule="tuned", arm=arm, averaged="")
            for width, found in gaps.items()
        ]
    right.axhline(0.0, color="#888888", linewidth=0.8)
    right.set_xscale("log", base=2)
    right.set_xticks(widths, [str(width) for width in widths])
    right.minorticks_off()
    right.set_xlabel("width of the hidden layer (units)")
    right.set_ylabel("accuracy lost against SGD (points)")
    right.set_title(f"C = {_multiple(clips[0])}, tuned rates", fontsize=8)
    left.set_title(f"width {width}; {_SEEDS.format(len(lines))}", fontsize=8)
    figure.legend(loc="outside lower center", ncols=5, fontsize=7)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_directions(
    run: records.Record, directory: pathlib.Path, name: str = "clipping_or_noise_directions"
) -> list[pathlib.Path]:
    """Cosines at the weights of SGD's run, the fraction clipped, and the distance travelled, along the run."""
    figure = figures.Figure(figsize=(11.0, 3.6), layout="constrained")
    cosine, clipped, distance = figure.subplots(1, 3)
    rows: list[dict[str, Any]] = []
    for clip, dashes in zip(run.config["relative_clips"], _DASHES, strict=False):
        lines = _final(run, "tuned", run.config["width"], clip)
        label = f", C = {_multiple(clip)}"

        def draw(
            axes, arm, panel, value: Callable[[dict], float | None], lines=lines, dashes=dashes, clip=clip, label=label
        ):
            looks = [line["arms"]["plain" if panel == "cosine" else arm]["looks"] for line in lines]
            parts = [100 * look["part"] for look in looks[0]]
            found = [statistics.estimate([_number(value(one[index])) for one in looks]) for index in range(len(parts))]
            means, halves = (np.array([getattr(one, key) for one in found]) for key in ("mean", "half_width"))
            axes.plot(
                parts, means, dashes, color=_COLORS[arm], marker=_MARKERS[arm], markersize=3, label=_LABELS[arm] + label
            )
            axes.fill_between(parts, means - halves, means + halves, color=_COLORS[arm], alpha=0.15, linewidth=0)
            rows.extend(
                _row(one, panel=panel, relative_clip=clip, arm=arm, part=part)
                for part, one in zip(parts, found, strict=True)
            )

        for arm in _OTHERS:
            draw(cosine, arm, "cosine", lambda look, arm=arm: look["cosines"][arm])
        for arm in _LABELS:
            draw(clipped, arm, "fraction_clipped", lambda look: look["fraction_clipped"])
            draw(distance, arm, "distance", lambda look: look["distance"])
    for axes, label in (
        (cosine, "cosine to the mean gradient,\nat the weights of SGD's run"),
        (clipped, "part of the examples with a gradient\nlonger than C, in each arm's run"),
        (distance, "distance from the initialization"),
    ):
        axes.set_xlabel("part of the steps (%)")
        axes.set_ylabel(label)
    cosine.set_ylim(bottom=0)
    figure.legend(*distance.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    figure.suptitle(f"{_SEEDS.format(len(lines))}, tuned rates, training examples", fontsize=8)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_switches(
    run: records.Record, directory: pathlib.Path, name: str = "clipping_or_noise_switches"
) -> list[pathlib.Path]:
    """Above: position of the end between the two ends without a switch. Below: accuracy; one column per other arm."""
    figure = figures.Figure(figsize=(9.4, 5.8), layout="constrained")
    panels = figure.subplots(2, len(_OTHERS), sharex=True, sharey="row")
    rows = []
    for clip, dashes in zip(run.config["relative_clips"], _DASHES, strict=False):
        lines = _final(run, "tuned", run.config["width"], clip)
        for (above, below), other in zip(panels.T, _OTHERS, strict=True):
            for first, then in ((other, "plain"), ("plain", other)):
                runs = [
                    [one for one in line["switches"] if (one["first"], one["then"]) == (first, then)] for line in lines
                ]
                switches = [100 * one["switch"] for one in runs[0]]
                label = f"{_LABELS[first]} to {_LABELS[then]}, C = {_multiple(clip)}"
                for axes, value in ((above, "position"), (below, "accuracy")):
                    scale = 100 if value == "accuracy" else 1
                    found = [
                        statistics.estimate([scale * _number(one[index][value]) for one in runs])
                        for index in range(len(switches))
                    ]
                    look = {"color": _COLORS[then], "marker": _MARKERS[then], "markersize": 5, "capsize": 3}
                    bars = np.nan_to_num([one.half_width for one in found])
                    axes.errorbar(switches, [one.mean for one in found], bars, fmt=dashes, label=label, **look)
                    rows += [
                        _row(one, panel=value, relative_clip=clip, first=first, then=then, switch=switch)
                        for switch, one in zip(switches, found, strict=True)
                    ]
            for arm in ("plain", other):
                mean = statistics.estimate([_points(line["arms"][arm]["accuracy"]) for line in lines]).mean
                below.axhline(mean, color=_COLORS[arm], linestyle=dashes, linewidth=0.8, alpha=0.6)
    for (above, below), other in zip(panels.T, _OTHERS, strict=True):
        above.axhline(0.5, color="#888888", linewidth=0.8)
        above.set_title(f"0: end of SGD; 1: end of {_LABELS[other]}", fontsize=8)
        below.set_xlabel("switch after this part of the steps (%)")
        below.set_xticks(switches)
    panels[0, 0].set_ylabel("position of the end")
    panels[1, 0].set_ylabel("test accuracy (%);\nlines: arms that do not switch")
    labels = {}
    for above in panels[0]:
        labels |= dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3, fontsize=7)
    figure.suptitle(f"{_SEEDS.format(len(lines))}, tuned rates", fontsize=8)
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_lines(
    run: records.Record, directory: pathlib.Path, name: str = "clipping_or_noise_lines"
) -> list[pathlib.Path]:
    """Losses along the straight line from SGD's end to the end of each other arm: training left, test right."""
    figure, panels = canvas.panels(2, width=4.4, height=3.6)
    rows: list[dict[str, Any]] = []
    for clip, dashes in zip(run.config["relative_clips"], _DASHES, strict=False):
        lines = _final(run, "tuned", run.config["width"], clip)
        for axes, loss in zip(panels, ("train_loss", "test_loss"), strict=True):
            for other in _OTHERS:
                curves = [next(one[loss] for one in line["lines"] if one["to"] == other) for line in lines]
                parts = np.linspace(0, 1, len(curves[0]))
                # Losses differ by factors: the mean and its interval are those of the logarithm.
                found = [
                    statistics.estimate(np.log([_number(curve[index]) for curve in curves]))
                    for index in range(len(parts))
                ]
                means, low, high = (np.exp([getattr(one, key) for one in found]) for key in ("mean", "low", "high"))
                label = f"{_LABELS[other]}, C = {_multiple(clip)}"
                axes.plot(parts, means, dashes, color=_COLORS[other], marker=_MARKERS[other], markersize=3, label=label)
                axes.fill_between(parts, low, high, color=_COLORS[other], alpha=0.15, linewidth=0)
                rows += [
                    {
                        "panel": loss,
                        "relative_clip": clip,
                        "arm": other,
                        "part": part,
                        "mean": mean,
                        "low": a,
                        "high": b,
                    }
                    for part, mean, a, b in zip(parts, means, low, high, strict=True)
                ]
    for axes, label in zip(panels, ("training examples", "test images"), strict=True):
        axes.set_yscale("log")
        axes.set_xlabel("place between the ends (0: SGD, 1: the other arm)")
        axes.set_title(label, fontsize=8)
    panels[0].set_ylabel("cross-entropy, geometric mean\nand 95 % interval over seeds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return canvas.save(figure, rows, directory, name)


def _stage(run: records.Record) -> list[dict[str, Any]]:
    return [line for line in run.metrics if line["stage"] == "final"]


def _final(run: records.Record, rule: str, width: int, clip: float) -> list[dict[str, Any]]:
    return [line for line in _stage(run) if (line["rule"], line["width"], line["relative_clip"]) == (rule, width, clip)]


def _bar(axes, where, found: statistics.Estimate, arm: str, **options: Any) -> None:
    look = {"color": _COLORS[arm], "marker": _MARKERS[arm], "markersize": 5, "capsize": 3, "linestyle": "none"}
    axes.errorbar([where], [found.mean], [np.nan_to_num(found.half_width)], **look, **options)


def _row(found: statistics.Estimate, **names: Any) -> dict[str, Any]:
    return {**names, "mean": found.mean, "low": found.low, "high": found.high, "seeds": found.count}


def _number(value: float | None) -> float:
    # A record holds null in place of NaN.
    return np.nan if value is None else value


def _points(accuracy: float) -> float:
    return 100 * accuracy


def _multiple(clip: float) -> str:
    return "median" if clip == 1 else f"median / {1 / clip:g}" if clip < 1 else f"{clip:g} median"
