"""TAN's search: accuracy of the small runs against the learning rate, and of both batch sizes at the chosen one.

    draw(records.read("runs/tan_search/digits"), pathlib.Path("figures"))

Tested by tests/experiments/tan_search_test.py.
"""

import pathlib

from noisy_sgd import records, statistics
from noisy_sgd.figures import canvas

_LOOKS = {"small_batch_size": ("#0072B2", "o", 0.96), "batch_size": ("#009E73", "^", 1.04)}


@canvas.styled
def draw(record: records.Record, directory: pathlib.Path, name: str = "tan_search") -> list[pathlib.Path]:
    """The search as dots, one per seed; the final runs as means with 95 % intervals."""
    figure, (axes,) = canvas.panels(width=5.4)
    setting, rows = record.config, []
    for line in record.metrics:
        if line["stage"] == "tuning":
            axes.plot(
                line["learning_rate"], 100 * line["accuracy"], ".", color=_LOOKS["small_batch_size"][0], alpha=0.5
            )
            rows.append(_row("search", line["batch_size"], line["learning_rate"], 100 * line["accuracy"]))
    for size_name, (color, marker, shift) in _LOOKS.items():
        final = [
            line for line in record.metrics if line["stage"] == "final" and line["batch_size"] == setting[size_name]
        ]
        found = statistics.estimate([100 * line["accuracy"] for line in final])
        rate = record.results["learning_rate"]
        label = f"{'predicted' if size_name == 'small_batch_size' else 'private run'}, B = {setting[size_name]}"
        look = {"color": color, "marker": marker, "markersize": 6, "capsize": 4, "linestyle": "none"}
        axes.errorbar(rate * shift, found.mean, yerr=found.half_width, label=label, **look)
        rows.append(_row("final", setting[size_name], rate, found.mean, found.low, found.high))
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"learning rate (dots: the search at B = {setting['small_batch_size']})")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples, {setting['num_steps']} steps, "
        f"sigma / B = {record.results['noise_multiplier'] / setting['batch_size']:.2g}",
        fontsize=9,
    )
    axes.legend(loc="lower center")
    return canvas.save(figure, rows, directory, name)


def _row(stage, batch_size, rate, accuracy, low=None, high=None):
    return {
        "stage": stage,
        "batch_size": batch_size,
        "learning_rate": rate,
        "accuracy_percent": accuracy,
        "interval_low": low,
        "interval_high": high,
    }
