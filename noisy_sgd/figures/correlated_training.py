"""Accuracy of private training with independent and with correlated noise, from experiments/correlated_training.

    draw(records.read("runs/correlated_training"), pathlib.Path("figures"))

Tested by tests/studies/correlated_training_test.py.
"""

import pathlib

from noisy_sgd import records
from noisy_sgd.figures import canvas

LABELS = {
    "poisson": "independent, Poisson\n(amplified)",
    "shuffled": "independent, shuffled",
    "two_draws": "two draws, cyclic",
    "many_draws": "many draws, cyclic",
}


@canvas.styled
def draw(record: records.Record, directory: pathlib.Path, name: str = "correlated_training") -> list[pathlib.Path]:
    """Final accuracy of every arm, mean over seeds with its 95 % interval; one panel per epsilon."""
    table, setting = record.results["table"], record.config
    epsilons = list(dict.fromkeys(line["epsilon"] for line in table))
    figure, panels = canvas.panels(len(epsilons), width=3.2, height=2.6)
    for axes, epsilon in zip(panels, epsilons, strict=True):
        lines = [line for line in table if line["epsilon"] == epsilon]
        for place, line in enumerate(lines):
            half_width = (line["high"] - line["low"]) / 2
            axes.errorbar(line["accuracy"], place, xerr=half_width, fmt="o", color="#0072B2", markersize=4, capsize=3)
        axes.set_yticks(range(len(lines)), [LABELS[line["arm"]] for line in lines])
        axes.set_xlabel("final test accuracy (%)")
        axes.set_title(rf"$\varepsilon$ = {epsilon:g}", fontsize=9)
    panels[0].invert_yaxis()
    figure.suptitle(
        f"{setting['dataset']}, {setting['num_train_examples']:,} examples, B = {setting['batch_size']}, "
        f"{setting['num_epochs']} epochs, {setting['num_seeds']} seeds",
        fontsize=8,
    )
    rows = [{**line, "coefficients": " ".join(f"{value:.4g}" for value in line["coefficients"])} for line in table]
    return canvas.save(figure, rows, directory, name)
