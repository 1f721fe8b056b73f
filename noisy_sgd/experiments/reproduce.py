"""Makes the runs that the report compares with the paper, draws the figures, and writes the report.

    python -m noisy_sgd.experiments.reproduce --flagfile=configs/reproduce/quick.flags

The report has one row per claim, with the source's value, the value here and the verdict, which is computed from the
records. Finished runs are not made again: after an interruption the same command makes the missing ones, and when all
are finished it draws and judges without training. If one experiment fails, the others are made all the same, and the
report says what is missing. --section makes some experiments only; --finished_runs makes none, and judges the training
runs of any folder, such as those on ImageNet.

Tested by tests/experiments/binaries_test.py and reproduce_test.py.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from noisy_sgd import config, machine, records
from noisy_sgd.experiments import batch_size_sweep, flags, registry
from noisy_sgd.experiments.flags import command_line, flagfiles, training
from noisy_sgd.experiments.report import claims, imagenet_claims, pages, sections, theory_measurements
from noisy_sgd.experiments.support import endings
from noisy_sgd.figures import images

_ALL = "all"
_COMMAND = "python -m noisy_sgd.experiments"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is part of a report: its name, its flagfile, and its settings at a place below the report's."""

    name: str
    flagfile: pathlib.Path
    settings: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a report compares with the paper.

    Attributes:
        run_dir: holds a folder for each experiment.
        sweep: Figures 1 and 2. Defaults to None, like `theory`, where nothing is made.
        theory: the measurements behind the rows on the theory.
        studies: further experiments.
        only: the experiments that are made now. Defaults to none: all are.
        finished_runs: a folder of training runs that are judged; nothing is made. Defaults to None.
    """

    run_dir: str
    sweep: config.Sweep | None = None
    theory: theory_measurements.Settings | None = None
    studies: tuple[Study, ...] = ()
    only: tuple[str, ...] = ()
    finished_runs: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Runs of one experiment: how to make them, and what to do with them when they are finished."""

    experiment: registry.Experiment
    command: str
    make: Callable[[], Any]
    records: Callable[[], list[records.Record]]
    draw: Callable[[pathlib.Path], list[pathlib.Path]]


def parse(argv: Sequence[str]) -> Settings:
    """Everything that the report compares with the paper."""
    values = command_line.flag_set()
    training.define_sweep(values, "where runs, figures and the report are written", "results")
    share = "takes this part of the theory's runs, steps and data sets; below 1 to try the command out"
    command_line.define_one(values, "report", "theory_share", float, theory_measurements.Settings.share, share)
    studies = "comma-separated flagfiles, FOLDER/BINARY/NAME.flags, that are run too, or all: those of the full report"
    command_line.define_list(values, "report", "study", (), studies)
    section = "comma-separated experiments that are made now; the report shows what is finished of the others"
    command_line.define_list(values, "report", "section", (), section)
    finished = "judges the finished training runs of this folder by Figures 1 and 2, and makes no run"
    command_line.define_one(values, "report", "finished_runs", str, None, finished)
    command_line.parse(values, argv, parse)
    folder = values["finished_runs"].value
    if folder is not None:
        others = [name for name in values if name not in ("finished_runs", "run_dir", "help", "flagfile")]
        command_line.refuse_typed(values, dict.fromkeys(others, "is not read together with --finished_runs"))
        return Settings(run_dir=values["run_dir"].value, finished_runs=folder)
    sweep = training.sweep(values, folder="batch_size_sweep")
    run_dir, data_dir, chosen = (values[name].value for name in ("run_dir", "data_dir", "study"))
    if chosen == [_ALL]:
        chosen = [flagfile for study in registry.studies().values() for flagfile in study.flagfiles]
    listed = tuple(_study(pathlib.Path(flagfile), run_dir, data_dir) for flagfile in chosen)
    only = tuple(values["section"].value)
    known = sorted({"batch_size_sweep", "theory", *(study.name for study in listed)})
    unknown = [name for name in only if name not in known]
    constraint = f"must list some of {', '.join(known)}"
    config.require(not unknown, "section", constraint, ",".join(unknown), "leave it out to make all")
    return Settings(
        run_dir=run_dir,
        sweep=sweep,
        theory=theory_measurements.Settings(share=values["theory_share"].value),
        studies=listed,
        only=only,
    )


def _study(flagfile: pathlib.Path, results: str, data_dir: str | None) -> Study:
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
    return Study(name=name, flagfile=flagfile, settings=settings)


def main(settings: Settings) -> None:
    """Makes the missing runs, then draws and judges everything."""
    results = pathlib.Path(settings.run_dir)
    if settings.finished_runs is not None:
        _write([_finished(settings.finished_runs, results)], results, settings)
        return
    theory_directory = results / "theory" / "run"
    with flags.refusals():
        records.check(theory_directory, settings.theory.resolved())
        for study in settings.studies:
            records.check(study.settings.run_dir, study.settings.resolved())
    parts = list(_parts(settings, theory_directory))
    failures: dict[str, list[str]] = {}
    for part in parts:
        if not settings.only or part.experiment.name in settings.only:
            try:
                part.make()
            except flags.Ended as ended:
                if ended.code == endings.STOPPED:
                    raise
                failures.setdefault(part.experiment.name, []).append(ended.sentence)
    _write(list(_sections(settings, parts, failures)), results, settings)
    if failures:
        flags.end(
            f"{', '.join(failures)} failed; when that is fixed, the same command makes what is missing", flags.FAILED
        )


def _parts(settings: Settings, theory_directory: pathlib.Path) -> Iterator[_Part]:
    """What the report consists of, in the order of the report."""
    own = f"{_COMMAND}.reproduce {' '.join(sys.argv[1:])}".strip()
    runs = list(settings.sweep.runs.values())
    for experiment in registry.EXPERIMENTS:
        if experiment.name == "batch_size_sweep":
            yield _Part(
                experiment=experiment,
                command=own,
                make=lambda: batch_size_sweep.run(settings.sweep),
                records=lambda: _finished_records([one.run.run_dir for one in runs], [one.resolved() for one in runs]),
                draw=lambda directory: batch_size_sweep.draw(settings.sweep, directory),
            )
        elif experiment.name == "theory":
            yield _Part(
                experiment=experiment,
                command=own,
                make=lambda: theory_measurements.run(settings.theory, theory_directory),
                records=lambda: _finished_records([theory_directory], [settings.theory.resolved()]),
                draw=lambda directory: theory_measurements.draw(records.read(theory_directory), directory),
            )
        for study in settings.studies:
            if study.name == experiment.name:
                yield _of_study(experiment, study)


def _of_study(experiment: registry.Experiment, study: Study) -> _Part:
    directory = study.settings.run_dir
    return _Part(
        experiment=experiment,
        command=f"{_COMMAND}.{study.name} --flagfile={flagfiles.as_typed(study.flagfile)} --run_dir={directory}",
        make=lambda: experiment.binary.run(study.settings),
        records=lambda: _finished_records([directory], [study.settings.resolved()]),
        # Two records of one experiment have figures of the same names.
        draw=lambda figures: experiment.binary.draw(
            records.read(directory), figures / study.name / study.flagfile.stem
        ),
    )


def _finished_records(directories: Sequence[str | os.PathLike], described: Sequence[Any]) -> list[records.Record]:
    """The records, or none of them if one is not finished."""
    found = list(zip(directories, described, strict=True))
    return [records.read(one) for one, _ in found] if all(records.is_finished(*one) for one in found) else []


def _sections(settings: Settings, parts: Sequence[_Part], failures: dict[str, list[str]]) -> Iterator[sections.Section]:
    """The finished runs, drawn and judged, experiment by experiment."""
    results = pathlib.Path(settings.run_dir)
    judged = _claims([(study.name, study.flagfile.stem) for study in settings.studies])
    for experiment in registry.EXPERIMENTS:
        own = [part for part in parts if part.experiment is experiment]
        figures, runs = [], []
        with endings.drawing():
            for part in own:
                made = part.records()
                runs.append(sections.Runs.of(part.command, made))
                if made:
                    figures += [path for path in part.draw(results / "figures") if path.suffix == ".png"]
            with flags.refusals():
                rows = claims.judge([claim for claim in experiment.claims if claim in judged], results)
        if own or rows:
            yield sections.Section(
                name=experiment.name,
                heading=experiment.heading,
                rows=rows,
                figures=figures,
                runs=runs,
                failures=failures.get(experiment.name, ()),
            )


def _finished(folder: str, results: pathlib.Path) -> sections.Section:
    """Training runs of any folder, by the rows of Figures 1 and 2."""
    with flags.refusals():
        found = records.find(folder)
        constraint = "must hold run directories of finished training runs"
        config.require(bool(found), "finished_runs", constraint, folder, "train first")
    experiment = registry.EXPERIMENTS[0]
    with endings.drawing():
        paths = images.draw_batch_size_sweep(found, results / "figures") + images.draw_curves(
            found, results / "figures"
        )
        if any(record.config["algorithm"]["algorithm"] == "noisy_sgd" for record in found):
            paths += images.draw_norms(found, results / "figures")
    return sections.Section(
        name=experiment.name,
        heading=f"{experiment.heading}: the runs in {folder}",
        rows=claims.judge_runs([*imagenet_claims.CLAIMS, *experiment.claims], found),
        figures=[path for path in paths if path.suffix == ".png"],
        runs=[sections.Runs.of(f"{_COMMAND}.train", found)],
    )


def _write(found: Sequence[sections.Section], results: pathlib.Path, settings: Settings) -> None:
    for section in found:
        for row in section.rows:
            print(f"{row.verdict:>12}  {row.claim}: {row.here or '-'}")
    setting = "" if settings.finished_runs else _setting(settings.sweep)
    versions = ", ".join(f"{name} {version}" for name, version in records.versions().items())
    with endings.drawing():
        written = pages.write(found, results, setting=f"{setting}Drawn on {machine.described()}, with {versions}.")
    for path in (*(figure for section in found for figure in section.figures), *written):
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
    """How the results of the sweep were made, in two sentences."""
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
    return (
        f"Figures 1 and 2: {data.dataset}, {examples}{wrong}; {settings.model.model}{hidden}; {chosen.num_steps} "
        f"steps, learning rate {chosen.learning_rate:g}{noisy}, {seeds} seeds{average}. "
        "Theory: synthetic regression in float64. "
    )


if __name__ == "__main__":
    flags.run(parse, main)
