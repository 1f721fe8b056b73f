"""Makes the runs that the report compares with the paper, draws the figures, and writes the report.

    python -m noisy_sgd.experiments.reproduce --flagfile=configs/reproduce/quick.flags

The report has one row per claim, with the paper's value, the value here and the verdict, which is computed from the
records. Finished runs are not made again: after an interruption the same command makes the missing ones, and when all
are finished it draws and judges without training.

Tested by tests/experiments/binaries_test.py.
"""

import dataclasses
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import batch_size_sweep, flags, registry
from noisy_sgd.experiments.flags import command_line, training
from noisy_sgd.experiments.report import claims, pages, theory_measurements
from noisy_sgd.experiments.support import endings

_ALL = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a report compares with the paper.

    Attributes:
        run_dir: holds a folder for each experiment.
        sweep: Figures 1 and 2.
        theory: the measurements behind the rows on the theory.
        studies: settings of other experiments, by their names; each has its place below `run_dir`.
    """

    run_dir: str
    sweep: config.Sweep
    theory: theory_measurements.Settings
    studies: tuple[tuple[str, Any], ...] = ()


def parse(argv: Sequence[str]) -> Settings:
    """Everything that the report compares with the paper."""
    values = command_line.flag_set()
    training.define_sweep(values, "where runs, figures and the report are written", "results")
    share = "takes this part of the theory's runs, steps and data sets; below 1 to try the command out"
    command_line.define_one(values, "report", "theory_share", float, theory_measurements.Settings.share, share)
    studies = "comma-separated flagfiles, FOLDER/BINARY/NAME.flags, that are run too, or all: those of the full report"
    command_line.define_list(values, "report", "study", (), studies)
    sweep = training.sweep(values, argv, parse, folder="batch_size_sweep")
    run_dir, data_dir, flagfiles = (values[name].value for name in ("run_dir", "data_dir", "study"))
    if flagfiles == [_ALL]:
        flagfiles = [flagfile for study in registry.studies().values() for flagfile in study.flagfiles]
    return Settings(
        run_dir=run_dir,
        sweep=sweep,
        theory=theory_measurements.Settings(share=values["theory_share"].value),
        studies=tuple(_study(pathlib.Path(flagfile), run_dir, data_dir) for flagfile in flagfiles),
    )


def _study(flagfile: pathlib.Path, results: str, data_dir: str | None) -> tuple[str, Any]:
    """The experiment that a flagfile's folder is named after, and its settings, at a place below `results`.

    A study that reads images from a folder reads them from `data_dir`, unless its flagfile names another folder.
    """
    name, studies = flagfile.parent.name, registry.studies()
    constraint = f"must lie in a folder {', '.join(studies)}"
    config.require(name in studies, "study", constraint, flagfile, "see configs/")
    place = pathlib.Path(results, name, flagfile.stem)
    settings = studies[name].binary.parse([name, f"--flagfile={flagfile}", f"--run_dir={place}"])
    # Some studies have no such field, and those on digits refuse the flag.
    if hasattr(settings, "data_dir") and settings.data_dir is None and "data_dir" not in settings.unread:
        settings = dataclasses.replace(settings, data_dir=data_dir)
    return name, settings


def main(settings: Settings) -> None:
    """Makes the missing runs, then draws and judges everything."""
    results = pathlib.Path(settings.run_dir)
    theory_directory = results / "theory" / "run"
    with flags.refusals():
        records.check(theory_directory, settings.theory.resolved())
        for _, study in settings.studies:
            records.check(study.run_dir, study.resolved())
    batch_size_sweep.run(settings.sweep)
    theory = theory_measurements.run(settings.theory, theory_directory)
    binaries = {name: experiment.binary for name, experiment in registry.studies().items()}
    measured = [(name, binaries[name].run(study)) for name, study in settings.studies]
    with endings.drawing():
        paths = batch_size_sweep.draw(settings.sweep, results / "figures")
        paths += theory_measurements.draw(theory, results / "figures")
        for name, record in measured:
            # Two records of one experiment have figures of the same names.
            paths += binaries[name].draw(record, results / "figures" / name / record.directory.name)
        figures = [path for path in paths if path.suffix == ".png"]
        with flags.refusals():
            rows = claims.judge(_claims([(name, record.directory.name) for name, record in measured]), results)
        for row in rows:
            print(f"{row.verdict:>12}  {row.claim}: {row.here or '-'}")
        for path in (*paths, *pages.write(rows, results, figures=figures, setting=_setting(settings.sweep))):
            print(path)


def _claims(runs: Sequence[tuple[str, str]]) -> list[claims.Claim]:
    """The rows that a report with these runs of studies has; one with all of them also lists what it does not run."""
    names = {name for name, _ in runs}
    everything = {(name, path.stem) for name, study in registry.studies().items() for path in study.flagfiles}
    complete = everything <= set(runs)
    return [
        claim
        for experiment in registry.EXPERIMENTS
        for claim in experiment.claims
        if complete
        or not experiment.is_study
        or (experiment.name in names if claim.run is None else (experiment.name, claim.run) in runs)
    ]


def _setting(sweep: config.Sweep) -> str:
    """How the results were made, in one paragraph."""
    settings = next(iter(sweep.runs.values()))
    data, chosen = settings.data, settings.training
    seeds = len({one.run.seed for one in sweep.runs.values()})
    examples = f"{data.num_train_examples} training examples" if data.num_train_examples else "all training examples"
    wrong = f", {100 * data.label_noise:g} % of their labels replaced by random ones" if data.label_noise else ""
    average = f", test accuracy of the weights' moving average (decay {chosen.ema_decay:g})" if chosen.ema_decay else ""
    hidden = f" ({', '.join(map(str, settings.model.hidden))} hidden units)" if settings.model.hidden else ""
    noise = {one.training.algorithm: one.training for one in sweep.runs.values()}
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
    flags.run(parse, main)
