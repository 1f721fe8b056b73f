"""Runs what the report compares with the paper, draws the figures, and writes the report: claim, paper, here, verdict.

    python -m noisy_sgd.experiments.reproduce --flagfile=configs/reproduce/quick.flags

Verdicts are computed from the records. Finished runs are not run again: interrupted, it goes on where it was; finished,
it draws and judges without training.
"""

import os
import pathlib
import platform

from noisy_sgd import config, records
from noisy_sgd.experiments import (
    batch_size_sweep,
    deep_diagonal,
    diagonal_linear,
    flags,
    least_squares,
    noise_threshold,
    sde_error,
    theory,
)
from noisy_sgd.experiments.report import claims, figure_claims, report, theory_claims
from noisy_sgd.experiments.support import endings, toy_problems

STUDIES = {
    "deep_diagonal": deep_diagonal,
    "diagonal_linear": diagonal_linear,
    "least_squares": least_squares,
    "noise_threshold": noise_threshold,
    "sde_error": sde_error,
}


def main(settings: toy_problems.Reproduction) -> None:
    """Runs what is missing, then draws and judges everything."""
    results = pathlib.Path(settings.run_dir)
    theory_directory = results / theory_claims.EXPERIMENT / "run"
    with flags.refusals():
        records.check(theory_directory, settings.theory.resolved())
        for _, study in settings.studies:
            records.check(study.run_dir, study.resolved())
    batch_size_sweep.run(settings.sweep)
    measured = theory.run(settings.theory, theory_directory)
    studies = [(STUDIES[name], STUDIES[name].run(study)) for name, study in settings.studies]
    with endings.drawing():
        paths = batch_size_sweep.draw(settings.sweep, results / "figures") + theory.draw(measured, results / "figures")
        for study, record in studies:
            paths += study.draw(record, results / "figures")
        figures = [path for path in paths if path.suffix == ".png"]
        figures_claimed = figure_claims.FIGURES if settings.studies else ()
        with flags.refusals():
            rows = report.judge((*claims.IMAGES, *theory_claims.THEORY, *figures_claimed), results)
        for row in rows:
            print(f"{row.verdict:>12}  {row.claim}: {row.here or '-'}")
        for path in (*paths, *report.write(rows, results, figures=figures, setting=_setting(settings.sweep))):
            print(path)


def _setting(sweep: config.Sweep) -> str:
    """How the results were made, in words."""
    settings = next(iter(sweep.runs.values()))
    data, chosen = settings.data, settings.algorithm
    seeds = len({one.run.seed for one in sweep.runs.values()})
    examples = f"{data.num_train_examples} training examples" if data.num_train_examples else "all training examples"
    wrong = f", {100 * data.label_noise:g} % of their labels drawn anew" if data.label_noise else ""
    average = f", test accuracy of the weights' moving average (decay {chosen.ema_decay:g})" if chosen.ema_decay else ""
    hidden = f" ({', '.join(map(str, settings.model.hidden))} hidden units)" if settings.model.hidden else ""
    noise = {one.algorithm.algorithm: one.algorithm for one in sweep.runs.values()}
    noisy = f", Noisy-SGD's sigma / B {noise['noisy_sgd'].effective_noise:g}" if "noisy_sgd" in noise else ""
    if "dp_sgd" in noise:
        noisy += f", DP-SGD's {noise['dp_sgd'].effective_noise:g} at C = {noise['dp_sgd'].l2_norm_clip:g}"
    versions = ", ".join(f"{name} {version}" for name, version in records.versions().items())
    return (
        f"Real images: {data.dataset}, {examples}{wrong}; {settings.model.model}{hidden}; {chosen.num_steps} steps, "
        f"learning rate {chosen.learning_rate:g}{noisy}, {seeds} seeds{average}. "
        f"Theory: synthetic regression in float64. Drawn on {os.cpu_count()} cores "
        f"({platform.machine()}) with {versions}."
    )


if __name__ == "__main__":
    flags.run(flags.reproduce, main)
