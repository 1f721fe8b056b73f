"""A run directory: what a run was, what it measured, and whether it finished.

    run.json        resolved configuration, package versions, privacy statement, status, and when finished, on which
                    machine, on which day and in how many seconds; replaced as a whole
    metrics.jsonl   one JSON object per line, flushed when written; no clock times, so that runs compare byte for byte
    ledger.jsonl    which steps a DP-SGD run may have released, over all its attempts
    private/        metrics.jsonl of all that a DP-SGD run computes from training data without noise: not for release
    tensorboard/    TensorBoard's events
    model.keras     the trained network, and model_ema.keras with the weights' average: for use elsewhere

Example:

    run = records.create("runs/first", config.resolved(), privacy="No guarantee: ...")
    run.append({"step": 100, "test_accuracy": 0.93})
    run.finish({"test_accuracy": 0.93})
    records.read("runs/first").metrics[-1]["test_accuracy"]
"""

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from noisy_sgd import files, machine

RUNNING, FINISHED = "running", "finished"
PACKAGES = ("tensorflow", "keras", "tensorflow-privacy", "dp-accounting", "numpy")

_DESCRIBED = ("config", "versions", "privacy", "status", "results")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a run directory holds.

    `made` says of a finished run on which `machine`, on which `day` and in how many `seconds` its last attempt made it;
    it is empty in records of older versions.
    """

    directory: pathlib.Path
    config: dict[str, Any]
    versions: dict[str, str]
    privacy: Any
    status: str
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    made: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def accuracy(self) -> str:
        """The metric that a training run reports: accuracy of the averaged weights, if the run averages them."""
        return "val_ema_accuracy" if self.config["algorithm"].get("ema_decay") else "val_accuracy"


class Run:
    """A run directory to write to; `create` and `reopen` return one."""

    def __init__(self, directory: pathlib.Path, description: dict[str, Any]):
        self.directory = directory
        self._description = description
        self._began = time.monotonic()

    def append(self, metrics: Mapping[str, Any], *, private: bool = False) -> None:
        """Adds one line to metrics.jsonl, or to the one in private/; a number that is not finite is written as null.

        Raises:
            ValueError: if the line cannot be written.
        """
        line = json.dumps(plain(metrics)) + "\n"
        with self._written(self._metrics(private)) as path, open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def text(self, *, private: bool = False) -> str:
        """All of metrics.jsonl, or of the one in private/; empty before the first line."""
        path = self._metrics(private)
        # A damaged text differs from the checkpoint's copy, and is then replaced.
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def rewrite(self, text: str, *, private: bool = False) -> None:
        """Resets metrics.jsonl, or the one in private/, to an earlier `text`.

        Raises:
            ValueError: if the file cannot be written.
        """
        if text != self.text(private=private):
            with self._written(self._metrics(private)) as path:
                files.write(path, text)

    def note_corrupt(self, names: Iterable[str]) -> int:
        """Adds names of images that cannot be decoded to private/corrupt_images.txt; returns how many it now lists.

        Raises:
            ValueError: if the file cannot be written.
        """
        path = self.directory / "private" / "corrupt_images.txt"
        listed = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
        known = listed | set(names)
        if known != listed:
            with self._written(path):
                files.write(path, "".join(f"{name}\n" for name in sorted(known)))
        return len(known)

    def state(self, privacy: Any) -> None:
        """Replaces the privacy statement; a ValueError names the file if it cannot be written."""
        self._describe(privacy=plain(privacy))

    def finish(self, results: Mapping[str, Any]) -> None:
        """Marks the run as finished, with its last results; a ValueError names the file if it cannot be written."""
        made = {
            "machine": machine.described(),
            "day": datetime.date.today().isoformat(),
            "seconds": round(time.monotonic() - self._began, 1),
        }
        self._describe(status=FINISHED, results=plain(results), made=made)

    def _describe(self, **changes: Any) -> None:
        self._description.update(changes)
        with self._written(self.directory / "run.json") as path:
            files.write(path, _as_json(self._description))

    @staticmethod
    @contextlib.contextmanager
    def _written(path: pathlib.Path) -> Iterator[pathlib.Path]:
        """The path in a directory that exists; errors of the block name it."""
        with files.naming(path, "written"):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            yield path

    def _metrics(self, private: bool) -> pathlib.Path:
        return self.directory / "private" / "metrics.jsonl" if private else self.directory / "metrics.jsonl"


def create(directory: str | os.PathLike, config: Mapping[str, Any], *, privacy: Any) -> Run:
    """Makes a run directory, or restarts an unfinished run of the same configuration without metrics.

    The directory appears with its run.json in one rename, so no other process sees it without run.json. To restart a
    run, hold the directory's lock: another process may be writing to it.

    Args:
        directory: the path; it need not exist.
        config: the resolved configuration, JSON values only; a directory with another configuration is refused.
        privacy: the privacy statement, JSON values.

    Returns:
        The `Run` to write to.

    Raises:
        ValueError: if the directory cannot be written, or holds other files, another run (the message names the first
            difference), or this run already finished.
    """
    run = reopen(directory, config, privacy=privacy)
    if run.text() or run.text(private=True):
        run.rewrite("")
        run.rewrite("", private=True)
    # An earlier attempt may have used other package versions.
    run._describe(versions=versions(), privacy=plain(privacy))
    return run


def _new(directory: pathlib.Path, config: Mapping[str, Any], privacy: Any) -> Run:
    """Makes a run directory where there is none or an empty one."""
    description = {
        "config": plain(config),
        "versions": versions(),
        "privacy": plain(privacy),
        "status": RUNNING,
        "results": {},
    }
    try:
        with files.new_directory(directory) as fresh:
            files.write(fresh / "run.json", _as_json(description))
    except OSError as error:
        raise _unwritable(directory, error) from error
    return Run(directory, description)


def reopen(directory: str | os.PathLike, config: Mapping[str, Any], *, privacy: Any) -> Run:
    """Opens an unfinished run of the same configuration with its metrics, or makes the directory as `create` does.

    Raises:
        ValueError: as `create`.
    """
    directory = pathlib.Path(directory)
    check(directory, config)
    if is_finished(directory, config):
        raise ValueError(
            f"`run_dir` holds this run, already finished (Received: run_dir={directory}); nothing is left to do"
        )
    if not (directory / "run.json").exists():
        return _new(directory, config, privacy)
    return Run(directory, _description(directory))


def check(directory: str | os.PathLike, config: Mapping[str, Any]) -> None:
    """Refuses a directory in which `create` could not start this run; writes nothing.

    Raises:
        ValueError: as `create`.
    """
    directory = pathlib.Path(directory).absolute()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(
            f"`run_dir` needs a directory, but {nearest} is a file (Received: run_dir={directory}); choose another"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(
            f"`run_dir` must be writable, but {nearest} is not (Received: run_dir={directory}); choose another"
        )
    if nearest != directory or not any(directory.iterdir()):
        return
    if not (directory / "run.json").exists():
        raise ValueError(
            f"`run_dir` must be new or hold a run, but {directory} holds other files; choose another directory"
        )
    difference = first_difference(_description(directory)["config"], plain(config))
    if difference:
        raise ValueError(
            f"`run_dir` holds another run (Received: run_dir={directory}, {difference}); choose another directory"
        )


def read(directory: str | os.PathLike) -> Record:
    """Reads a run directory back; an incomplete last line of metrics.jsonl is left out.

    Raises:
        ValueError: if there is no readable run.json, or a line of metrics.jsonl is damaged.
    """
    directory = pathlib.Path(directory)
    return Record(directory=directory, metrics=_lines(directory / "metrics.jsonl"), **_description(directory))


def _description(directory: pathlib.Path) -> dict[str, Any]:
    """The contents of run.json."""
    try:
        description = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        return {name: description[name] for name in _DESCRIBED} | {"made": description.get("made", {})}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`run_dir` must hold the run.json of a run. Received: run_dir={directory} ({error})"
        ) from error


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics.jsonl; none where the file does not exist."""
    with files.naming(path, "read"):
        try:
            contents = path.read_bytes()
        except FileNotFoundError:
            return []
    lines = []
    for number, line in enumerate(contents.split(b"\n")[:-1], start=1):
        try:
            lines.append(json.loads(line))
            damaged = not isinstance(lines[-1], dict)
        except ValueError:
            damaged = True
        if damaged:
            raise ValueError(
                f"{path} is damaged: its line {number} is not a JSON object; repair that line, or remove "
                f"{path.parent} to run again"
            )
    return lines


def find(directory: str | os.PathLike) -> list[Record]:
    """Every finished run directly under a directory, by name."""
    folders = [path.parent for path in sorted(pathlib.Path(directory).glob("[!.]*/run.json"))]
    return [read(folder) for folder in folders if _description(folder)["status"] == FINISHED]


def is_finished(directory: str | os.PathLike, config: Mapping[str, Any]) -> bool:
    """Whether a directory holds this same run, finished."""
    if not (pathlib.Path(directory) / "run.json").exists():
        return False
    run = _description(pathlib.Path(directory))
    return run["status"] == FINISHED and first_difference(run["config"], plain(config)) is None


def first_difference(there: Any, here: Any, name: str = "") -> str | None:
    """Names the first value in which two configurations differ, depth first in sorted order; None if they agree.

    Example:
        >>> first_difference({"data": {"dataset": "digits"}}, {"data": {"dataset": "mnist"}})
        "data.dataset is 'digits' there and 'mnist' here"
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            inner = f"{name}.{key}" if name else key
            difference = first_difference(there.get(key, "absent"), here.get(key, "absent"), inner)
            if difference:
                return difference
        return None
    return None if there == here else f"{name} is {there!r} there and {here!r} here"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "absent"
    return installed


def source_digest() -> str:
    """SHA-256 of this package's modules: a package with another digest may compute other results."""
    root = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _as_json(description: Mapping[str, Any]) -> str:
    return json.dumps(description, indent=2) + "\n"


def plain(value: Any) -> Any:
    """JSON values: NumPy numbers become Python's, tuples become lists, and numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritable(directory: pathlib.Path, error: OSError) -> ValueError:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return ValueError(f"`run_dir` is in use by another process (Received: run_dir={directory}); choose another")
    return ValueError(f"`run_dir` cannot be written: {error.strerror} (Received: run_dir={directory}); choose another")
