"""Checkpoints: a step, arrays and facts in one file each, written so that a killed run always finds a whole one.

A checkpoint is `step_00000120.npz`, which `np.load` reads too. The same content gives the same bytes. The last 64 of
them, the comment of the zip, are the SHA-256 of all before, so a file that was cut short or damaged is never taken for
a whole one. Files appear under their name in one rename, and only their owner can read them, since they hold the key of
the noise.

    with files.lock("runs/first"):
        checkpoints.save("runs/first", checkpoints.Checkpoint(step=120, arrays=weights, facts={"seed": 0}), keep=3)
        checkpoints.load_newest("runs/first", print).step    # 120

A directory is local, or anything that tf.io.gfile knows, such as "gs://bucket/run".
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from noisy_sgd import checks, files

_NAME = re.compile(r"step_(\d{8,})\.npz")
_HEADER, _ARRAYS = "checkpoint", "arrays/"
_DIGEST_SIZE = 64
_PLAIN_KINDS = "biufcSU"

# The lock of a directory of checkpoints is that of any directory.
lock = files.lock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after `step` steps: arrays by name, and facts, which are JSON values."""

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def save(directory: str | os.PathLike, checkpoint: Checkpoint, *, keep: int) -> None:
    """Writes a checkpoint, and only then removes those that are no longer needed.

    Removed are what killed writers left half-written, all but the newest `keep` up to this step, and those of later
    steps: a run that is back at this step found them damaged.

    Args:
        directory: where; made if it does not exist.
        checkpoint: what to keep.
        keep: how many checkpoints stay, this one among them.

    Raises:
        ValueError: if the file cannot be written (the older checkpoints are as they were), for `keep` below 1, or for
            an array that is not of plain numbers or text.
    """
    checks.at_least("keep", keep, 1)
    data = _encoded(checkpoint)
    with files.naming(directory, "written"):
        files.remove_leftovers(directory, _NAME.pattern)
    files.write_private(_join(directory, f"step_{checkpoint.step:08d}.npz"), data)
    with files.naming(directory, "written"):
        found = _steps(files.names(directory))
        kept = [step for step in found if step <= checkpoint.step][:keep]
        for step, name in found.items():
            if step not in kept:
                files.remove(_join(directory, name))


def load_newest(directory: str | os.PathLike, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of a directory.

    Args:
        directory: where `save` put it.
        warn: called with one sentence for every newer checkpoint that is cut short, damaged or unreadable.

    Returns:
        The checkpoint; None if the directory holds none, or does not exist.

    Raises:
        ValueError: if there are checkpoints and none of them is whole.
    """
    with files.naming(directory, "read"):
        found = _steps(files.names(directory))
    names = list(found.values())
    for name, earlier in itertools.zip_longest(names, names[1:]):
        path = _join(directory, name)
        try:
            return _decoded(files.read(path))
        except ValueError as error:
            reason = str(error)
        if earlier is not None:
            warn(f"Checkpoint {path} is passed over, falling back to {earlier} before it: {reason}")
    if found:
        raise ValueError(
            f"`directory` must hold a whole checkpoint, but each of its {len(found)} is cut short, damaged or "
            f"unreadable. Received: directory={os.fspath(directory)}; choose another directory to start afresh"
        )
    return None


def clear(directory: str | os.PathLike) -> None:
    """Removes all checkpoints of a directory, whole or not.

    Raises:
        ValueError: if they cannot be removed.
    """
    with files.naming(directory, "written"):
        for name in _steps(files.names(directory)).values():
            files.remove(_join(directory, name))


def _encoded(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint's file."""
    header = json.dumps({"step": int(checkpoint.step), "facts": checkpoint.facts}, sort_keys=True)
    arrays = {_HEADER: np.frombuffer(header.encode(), np.uint8)}
    for name in sorted(checkpoint.arrays):
        array = np.asarray(checkpoint.arrays[name], order="C")
        if array.dtype.kind not in _PLAIN_KINDS:
            raise ValueError(f"`arrays` must hold plain numbers or text. Received: {name} of dtype {array.dtype}")
        arrays[_ARRAYS + name] = array
    file = io.BytesIO()
    np.savez(file, **arrays)
    # A zip ends with the length of its comment, two bytes, and the comment: the digest of all before it.
    file.seek(-2, os.SEEK_END)
    file.write(_DIGEST_SIZE.to_bytes(2, "little"))
    with file.getbuffer() as body:
        digest = hashlib.sha256(body).hexdigest()
    file.write(digest.encode())
    return file.getvalue()


def _decoded(data: bytes) -> Checkpoint:
    """The checkpoint in a file's bytes; ValueError if one of them is missing or wrong."""
    body = memoryview(data)[:-_DIGEST_SIZE]
    if hashlib.sha256(body).hexdigest().encode() != data[-_DIGEST_SIZE:]:
        raise ValueError("it was cut short or damaged (its SHA-256 is not the one it ends with)")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        header = json.loads(file[_HEADER].tobytes())
        arrays = {name.removeprefix(_ARRAYS): file[name] for name in file.files if name != _HEADER}
    return Checkpoint(step=header["step"], arrays=arrays, facts=header["facts"])


def _steps(names: list[str]) -> dict[int, str]:
    """The checkpoints among files, step -> name, the newest first."""
    found = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
    return dict(sorted(found.items(), reverse=True))


def _join(directory: str | os.PathLike, name: str) -> str:
    return os.path.join(os.fspath(directory), name)
