"""What MkDocs generates of the manual: the tables of flags, the lineage of every figure, and the API reference.

A page holds a marker, such as `<!-- every flag -->`, where a table is put in. Pages below api/ are made of docstrings
by mkdocstrings; what they list are the public names of each package.

Covered by tests/manual_test.py.
"""

import importlib
import importlib.util
import os
import pathlib
import re
import types
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mkdocs.structure import files as mkdocs_files  # noqa: E402 - TensorFlow reads the environment when it is imported

import noisy_sgd  # noqa: E402
from noisy_sgd.experiments import registry  # noqa: E402
from noisy_sgd.experiments.flags import command_line, flagfiles  # noqa: E402
from noisy_sgd.experiments.support import console  # noqa: E402

HOW_TO = "How to"
PACKAGES = ("privacy", "sampling", "mechanisms", "gradients", "training", "models", "data", "sde", "toy")


def on_config(config):
    """Adds the pages that the navigation does not list to the end of its how-to section."""
    listed = str(config.nav)
    pages = sorted(path.name for path in pathlib.Path(config.docs_dir).glob("*.md"))
    how_to = next(section[HOW_TO] for section in config.nav if HOW_TO in section)
    how_to.extend(page for page in pages if f"'{page}'" not in listed)
    return config


def on_files(files, config):
    """Makes the pages of the API reference."""
    for package in (noisy_sgd, *(getattr(noisy_sgd, name) for name in PACKAGES)):
        name = package.__name__.split(".")[-1]
        files.append(mkdocs_files.File.generated(config, f"api/{name}.md", content=_api(package)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Puts the tables in."""
    for marker, made in (("<!-- every flag -->", _flags), ("<!-- every figure -->", _figures)):
        if marker in markdown:
            markdown = markdown.replace(marker, made())
    return markdown


class _Parsed(Exception):
    """Carries the flags of a binary out of its `parse`."""


def _flags_of(name: str):
    """The flag set that a binary defines before it reads the command line, and what its `--help` says of it."""
    binary = importlib.import_module(f"noisy_sgd.experiments.{name}")
    with mock.patch.object(command_line, "parse", side_effect=_Parsed) as parse:
        try:
            binary.parse([name])
        except _Parsed:
            values, _, parser = parse.call_args.args
            return values, parser.__doc__
    raise RuntimeError(f"`parse` of {name} reads no command line")


def _flags() -> str:
    """A section per binary, with a table per group of flags."""
    text = []
    for name in console.binaries():
        values, summary = _flags_of(name)
        text += [f"## {name}", f"{summary.splitlines()[0]} `python -m noisy_sgd.experiments.{name}`"]
        for title, group in values.flags_by_module_dict().items():
            rows = [f"| `--{flag.name}` | {_default(flag)} | {_cell(flag.help)} |" for flag in group]
            text.append("\n".join([f"| {title} | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(text)


def _default(flag) -> str:
    value = flag.default
    if value is None or value == []:
        return "-"
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return f"`{_cell(str(value).lower() if isinstance(value, bool) else str(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _figures() -> str:
    """The paper's figures, then a section per experiment, and one per other folder of flagfiles."""
    table, text = list(_FIGURES_OF_THE_PAPER), []
    for experiment in registry.EXPERIMENTS:
        modules, heading = _modules(experiment), experiment.heading
        text += [f"## {experiment.name}", heading if heading.endswith("?") else f"{heading}."]
        text.append("\n".join(f"- {what} {paths}" for what, paths in modules.items()))
        text += _flagfiles(experiment.name, modules, table, experiment.flagfiles)
    others = {path.parent.name for path in flagfiles.CONFIGS.glob("*/*.flags")}
    for folder in sorted(others - {experiment.name for experiment in registry.EXPERIMENTS}):
        text += [f"## {folder}", *_flagfiles(folder, _ON_IMAGENET, table if folder == "imagenet" else [])]
    return "\n\n".join(["\n".join([*table[:2], *sorted(table[2:])]), *text])


_FIGURES_OF_THE_PAPER = ("| figure of the paper | flagfile | measured by | judged by |", "|---|---|---|---|")
# The report does not make these runs; `reproduce --finished_runs` judges them.
_ON_IMAGENET = {
    "measured by": "`noisy_sgd/experiments/train.py`",
    "judged by": "`noisy_sgd/experiments/report/imagenet_claims.py`",
}


def _flagfiles(folder: str, modules: dict[str, str], table: list[str], reported=()) -> list[str]:
    """What the flagfiles of a folder say; adds a row to the table for each figure of the paper that one is for."""
    text = []
    for path in sorted((flagfiles.CONFIGS / folder).glob("*.flags")):
        name, anchor = f"configs/{folder}/{path.name}", f"{folder}-{path.stem}"
        command, *said = _comments(path)
        report = ["In the full report."] if path in reported else []
        text += [f"### {name} {{#{anchor}}}", f"```\n{command}\n```", *said, *report]
        for figure in figures_in(said[0]):
            columns = " | ".join(modules.get(what, "-") for what in ("measured by", "judged by"))
            table.append(f"| {figure} | [{name}](#{anchor}) | {columns} |")
    return text


def _modules(experiment: registry.Experiment) -> dict[str, str]:
    """The modules of an experiment, by what they do.

    One without a binary is made by `reproduce`, and one that is no study is measured by its binary's own runs.
    """
    home, name = pathlib.Path(noisy_sgd.__file__).parent, experiment.name
    binaries = (f"experiments/{name}.py", "experiments/reproduce.py")
    places = {
        "command": binaries,
        "measured by": (f"studies/{name}.py", *binaries),
        "judged by": (f"experiments/report/{experiment.claimed_in}.py",),
    }
    found = {what: [path for path in paths if (home / path).exists()][:1] for what, paths in places.items()}
    found["drawn by"] = _figure_modules(name)
    return {what: ", ".join(f"`noisy_sgd/{path}`" for path in paths) for what, paths in found.items() if paths}


def _figure_modules(name: str) -> list[str]:
    """The modules of figures that the module which makes an experiment's runs imports."""
    makers = (f"noisy_sgd.experiments.{name}", f"noisy_sgd.experiments.report.{name}_measurements")
    maker = next(maker for maker in makers if importlib.util.find_spec(maker))
    imported = {each.__name__ for each in vars(importlib.import_module(maker)).values() if hasattr(each, "__spec__")}
    figures = sorted(each for each in imported if each.startswith("noisy_sgd.figures."))
    return [each.removeprefix("noisy_sgd.").replace(".", "/") + ".py" for each in figures]


def figures_in(sentence: str) -> list[int]:
    """The paper's figures that the first sentence of a flagfile names: "Figures 3, 4 and 6" are [3, 4, 6]."""
    named = re.search(r"Figures? ([\d, and]+)", re.split(r"[.:;](?: |$)", sentence)[0])
    return [int(number) for number in re.findall(r"\d", named[1])] if named else []


def _comments(path: pathlib.Path) -> list[str]:
    """The command that a flagfile begins with, and its other comments as paragraphs of Markdown."""
    lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    paragraphs = [""]
    for line in lines[1:]:
        if not line or re.match(r"- |[A-Z][\w ]*: ", line):
            paragraphs.append("")
        paragraphs[-1] = f"{paragraphs[-1]} {line}".strip()
    escaped = (re.sub(r"([*_`<|])", r"\\\1", paragraph) for paragraph in paragraphs if paragraph)
    return [lines[0], *(re.sub(r"^(Expected[^:]*|Time):", r"**\1:**", paragraph) for paragraph in escaped)]


def _api(package: types.ModuleType) -> str:
    """The page of a package: its docstring's first line, then every public name."""
    text = [f"# {package.__name__}", package.__doc__.split("\n\n")[0]]
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, types.ModuleType):
            if package is not noisy_sgd:
                text.append(f"::: {value.__name__}")
        elif callable(value) and value.__module__.startswith("noisy_sgd."):
            options = f'    options:\n      heading: "{package.__name__}.{name}"'
            text.append(f"::: {value.__module__}.{value.__qualname__}\n{options}")
    return "\n\n".join(text) + "\n"
