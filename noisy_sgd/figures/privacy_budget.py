"""What a privacy budget allows, from experiments/privacy_budget.

    draw_table    noise on the mean gradient against batch size; the CSV holds the whole table
    draw_noise    noise multiplier against batch size, one line per number of steps
    draw_steps    epsilon against steps: PLD and RDP, both neighbors, all sampling schemes
    draw_wall     epsilon against the noise multiplier at one sigma / B: the privacy wall

Each takes a `records.Record` whose metrics are the lines of studies/privacy_budget, each with its `measurement`:

    privacy_budget.draw_wall(records.read("runs/privacy_budget"), pathlib.Path("runs/privacy_budget/figures"))

Tested by tests/studies/privacy_budget_test.py.
"""

import pathlib
from typing import Any

from noisy_sgd import records
from noisy_sgd.figures import canvas

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOOKS = ("o-", "s--", "^:", "D-.", "v-", "P--")
_WALL = {"color": "black", "linestyle": ":", "linewidth": 1, "label": r"privacy wall, $\sigma$ = 2"}
_TITLES = {"accountant": "accountants", "neighbors": "neighboring data sets", "sampling": "sampling schemes"}


@canvas.styled
def draw_table(run: records.Record, directory: pathlib.Path, name: str = "privacy_budget") -> list[pathlib.Path]:
    """The noise of the mean gradient over the batch size, for the budget; the number at each point is sigma."""
    lines = _lines(run, "table")
    figure, (axes,) = canvas.panels(width=4.8)
    sizes, noises = ([line[key] for line in lines] for key in ("batch_size", "effective_noise"))
    axes.plot(sizes, noises, "o-", color=_COLORS[0])
    for line in lines:
        text = f"{line['noise_multiplier']:.4g}"
        place = (line["batch_size"], line["effective_noise"])
        axes.annotate(text, place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.margins(0.1, 0.2)
    _batch_sizes(axes, sizes)
    axes.set_ylabel(r"noise on the mean gradient, $\sigma / B$ (clip norms)")
    axes.set_title(rf"{_title(run)}; numbers: $\sigma$", fontsize=8)
    return canvas.save(figure, lines, directory, name)


@canvas.styled
def draw_noise(run: records.Record, directory: pathlib.Path, name: str = "noise_multiplier") -> list[pathlib.Path]:
    """Noise multipliers over the batch size, log-log, one line per number of steps."""
    lines = _lines(run, "noise")
    figure, (axes,) = canvas.panels(width=4.8)
    for number, (num_steps, group) in enumerate(_groups(lines, "num_steps").items()):
        sizes, noises = ([line[key] for line in group] for key in ("batch_size", "noise_multiplier"))
        label = f"{num_steps:,} steps"
        axes.plot(sizes, noises, _LOOKS[number], color=_COLORS[number], markersize=4, label=label)
    axes.axhline(2.0, **_WALL)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    _batch_sizes(axes, sizes)
    axes.set_ylabel(r"noise multiplier $\sigma$")
    axes.set_title(f"{_title(run, with_steps=False)}, rdp", fontsize=8)
    axes.legend(fontsize=7)
    return canvas.save(figure, lines, directory, name)


@canvas.styled
def draw_steps(run: records.Record, directory: pathlib.Path, name: str = "epsilon_over_steps") -> list[pathlib.Path]:
    """Epsilon over the steps, log-log: a panel for accountants, for neighbors and for sampling schemes."""
    lines = _lines(run, "steps")
    comparisons = _groups(lines, "comparison")
    figure, all_axes = canvas.panels(len(comparisons), width=3.0)
    steps = sorted({line["num_steps"] for line in lines})
    for axes, (comparison, group) in zip(all_axes, comparisons.items(), strict=True):
        for number, (curve, points) in enumerate(_groups(group, "curve").items()):
            epsilons = [point["epsilon"] for point in points]
            # Shuffled and cyclic batches cost the same: what is drawn later is smaller, and hides nothing.
            look = {"color": _COLORS[number], "markersize": 7 - 1.3 * number, "label": curve.replace("_", " ")}
            axes.plot([point["num_steps"] for point in points], epsilons, _LOOKS[number], **look)
        axes.axhline(run.config["epsilon"], color="black", linestyle=":", linewidth=1, label="budget")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(steps, [f"{each:,}" for each in steps])
        axes.minorticks_off()
        axes.set_xlabel("steps")
        axes.set_title(_TITLES[comparison], fontsize=8)
        axes.legend(fontsize=7)
    all_axes[0].set_ylabel(rf"$\varepsilon$ at $\delta$ = {run.config['delta']:g}")
    noise, size = (run.results[key] for key in ("noise_multiplier", "batch_size"))
    figure.suptitle(rf"N = {run.config['num_examples']:,}, B = {size:,}, $\sigma$ = {noise:g}", fontsize=9)
    return canvas.save(figure, lines, directory, name)


@canvas.styled
def draw_wall(run: records.Record, directory: pathlib.Path, name: str = "privacy_wall") -> list[pathlib.Path]:
    """Epsilon over the noise multiplier with sigma / B held constant, log-log, beside TAN's estimate."""
    lines = _lines(run, "wall")
    figure, (axes,) = canvas.panels(width=4.8)
    noises = [line["noise_multiplier"] for line in lines]
    axes.plot(noises, [line["epsilon"] for line in lines], "o-", color=_COLORS[0], markersize=4, label="rdp")
    estimate = r"TAN's estimate, $\eta^2 + 2 \eta \sqrt{\log(1 / \delta)}$"
    axes.plot(noises, [line["epsilon_tan"] for line in lines], "--", color=_COLORS[1], label=estimate)
    axes.axvline(2.0, **_WALL)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(rf"noise multiplier $\sigma$, with B = $\sigma$ / {run.results['effective_noise']:.3g}")
    axes.set_ylabel(rf"$\varepsilon$ at $\delta$ = {run.config['delta']:g}")
    config = run.config
    axes.set_title(f"N = {config['num_examples']:,}, {config['num_steps']:,} steps, {config['sampling']}", fontsize=8)
    axes.legend(fontsize=7)
    return canvas.save(figure, lines, directory, name)


def _lines(run: records.Record, measurement: str) -> list[dict[str, Any]]:
    """The lines of one measurement, without its name."""
    found = [dict(line) for line in run.metrics if line["measurement"] == measurement]
    for line in found:
        del line["measurement"]
    return found


def _groups(lines: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    """The lines by the value of a key, in the order of the lines."""
    values = dict.fromkeys(line[key] for line in lines)
    return {value: [line for line in lines if line[key] == value] for value in values}


def _title(run: records.Record, with_steps: bool = True) -> str:
    """The budget in one line."""
    config = run.config
    steps = f"{config['num_steps']:,} steps, " if with_steps else ""
    budget = rf"$\varepsilon$ = {config['epsilon']:g}, $\delta$ = {config['delta']:g}"
    return f"N = {config['num_examples']:,}, {steps}{budget}, {config['sampling'].replace('_', ' ')}"


def _batch_sizes(axes: Any, sizes: list[int]) -> None:
    """A logarithmic axis of batch sizes with the sizes as its ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("batch size B (logarithmic)")
