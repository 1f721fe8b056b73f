"""Checkpoints: each file holds a step, arrays and facts. A run that was killed always finds a complete checkpoint.

A checkpoint is a file such as `step_00000120.npz`, which `np.load` can also read. The same content gives the same
bytes. The last 64 bytes are the comment of the zip file: the SHA-256 of all bytes before them. A truncated or damaged
file therefore never passes for a complete checkpoint. A file gets its final name in one rename. Only its owner can read
it, because it holds the key of the noise.

    with files.lock("runs/first"):
        checkpoints.save("runs/first", checkpoints.Checkpoint(step=120, arrays=weights, facts={"seed": 0}), keep=3)
        checkpoints.load_newest("runs/first", print).step    # 120

A directory is a local path, or any path that tf.io.gfile supports, such as "gs://bucket/run".
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after `step` steps: arrays by name, and facts as JSON values."""

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def save(directory: str | os.PathLike, checkpoint: Checkpoint, *, keep: int) -> None:
    """Writes a checkpoint, and then removes the checkpoints that are no longer needed.

    First it removes incomplete files of writers that were killed. After the new checkpoint is written, it removes all
    but the newest `keep` checkpoints up to this step. It also removes the checkpoints of later steps: a run returns to
    an earlier step only if it found them damaged.

    Args:
        directory: the directory to write to; created if it does not exist.
        checkpoint: the checkpoint to write.
        keep: number of checkpoints to keep, including the new one.

    Raises:
        ValueError: if the file cannot be written (the older checkpoints stay unchanged), `keep` is below 1, or an array
            holds anything but plain numbers or text.
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
    """The newest complete checkpoint of a directory.

    Args:
        directory: the directory that `save` wrote to.
        warn: called with one sentence for each newer checkpoint that is truncated, damaged or unreadable.

    Returns:
        The checkpoint; None if the directory does not exist or holds no checkpoint.

    Raises:
        ValueError: if the directory holds checkpoints but no complete one.
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
            warn(f"Checkpoint {path} is skipped, falling back to {earlier}: {reason}")
    if found:
        raise ValueError(
            f"`directory` must hold a complete checkpoint, but all of its checkpoints ({len(found)}) are truncated, "
            "damaged or unreadable; choose another directory to start again. "
            f"Received: directory={os.fspath(directory)}"
        )
    return None


def clear(directory: str | os.PathLike) -> None:
    """Removes all checkpoints of a directory, complete or not.

    Raises:
        ValueError: if a checkpoint cannot be removed.
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
    # A zip file ends with the length of its comment in two bytes and the comment, here the digest of all bytes before.
    file.seek(-2, os.SEEK_END)
    file.write(_DIGEST_SIZE.to_bytes(2, "little"))
    with file.getbuffer() as body:
        digest = hashlib.sha256(body).hexdigest()
    file.write(digest.encode())
    return file.getvalue()


def _decoded(data: bytes) -> Checkpoint:
    """The checkpoint in the bytes of a file; ValueError if a byte is missing or wrong."""
    body = memoryview(data)[:-_DIGEST_SIZE]
    if hashlib.sha256(body).hexdigest().encode() != data[-_DIGEST_SIZE:]:
        raise ValueError("the file is truncated or damaged (its SHA-256 differs from the one at its end)")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        header = json.loads(file[_HEADER].tobytes())
        arrays = {name.removeprefix(_ARRAYS): file[name] for name in file.files if name != _HEADER}
    return Checkpoint(step=header["step"], arrays=arrays, facts=header["facts"])


def _steps(names: list[str]) -> dict[int, str]:
    """The names of the checkpoints among the files, by step, the newest first."""
    found = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
    return dict(sorted(found.items(), reverse=True))


def _join(directory: str | os.PathLike, name: str) -> str:
    return os.path.join(os.fspath(directory), name)
