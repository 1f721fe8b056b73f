"""The noise that a fixed epsilon needs at each batch size: the figure of experiments/fixed_epsilon_noise.

    fixed_epsilon_noise.draw(records.read("results/fixed_epsilon_noise/epsilon_3"), pathlib.Path("results/figures"))

Tested by tests/experiments/fixed_epsilon_noise_test.py.
"""

import pathlib

from noisy_sgd import records
from noisy_sgd.figures import canvas


@canvas.styled
def draw(run: records.Record, directory: pathlib.Path, name: str = "fixed_epsilon_noise") -> list[pathlib.Path]:
    """Noise on the mean gradient against the batch size, with the limit of the whole data set."""
    *sampled, whole = run.metrics
    figure, (axes,) = canvas.panels(width=4.8, height=3.4)
    sizes = [line["batch_size"] for line in sampled]
    noise = [line["noise_std"] for line in sampled]
    axes.plot(sizes, noise, "o-", markersize=4, color=canvas.COLORS["dp_sgd"], label="Poisson-sampled batches")
    axes.axhline(whole["noise_std"], color="0.4", linewidth=0.9, linestyle="--", label="the whole data set every step")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
    axes.set_xlabel("batch size B")
    axes.set_ylabel(r"noise on the mean gradient, $\sigma / B$ (units of C)")
    axes.set_title(
        rf"$\varepsilon$ = {run.config['epsilon']:g}, $\delta$ = {run.config['delta']:g}, "
        f"{run.config['num_steps']:,} steps, {run.config['num_examples']:,} examples",
        fontsize=9,
    )
    axes.legend(fontsize=8)
    rows = [{name: line[name] for name in ("batch_size", "noise_multiplier", "noise_std")} for line in run.metrics]
    return canvas.save(figure, rows, directory, name)
