"""Checkpoints: a step, arrays and facts in one file each, written so that a killed run always finds a whole one.

A checkpoint is `step_00000120.npz`, which `np.load` reads too. The same content gives the same bytes. The last 64 of
them, the comment of the zip, are the SHA-256 of all before, so a file that was cut short or damaged is never taken for
a whole one. Files appear under their name in one rename, and only their owner can read them, since they hold the key of
the noise.

    with checkpoints.lock("runs/first"):
        checkpoints.save("runs/first", checkpoints.Checkpoint(step=120, arrays=weights, facts={"seed": 0}), keep=3)
        checkpoints.load_newest("runs/first", print).step    # 120

A directory is local, or anything that tf.io.gfile knows, such as "gs://bucket/run".
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from noisy_sgd import checks

_NAME = re.compile(r"step_(\d{8,})\.npz")
_TEMPORARY = r"\.{}\.[0-9a-f]{{16}}\.tmp"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HEADER, _ARRAYS = "checkpoint", "arrays/"
_DIGEST_SIZE = 64
_PLAIN_KINDS = "biufcSU"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


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
    files = _files(directory)
    with _naming(directory, "written"):
        _remove_temporaries(directory, _NAME.pattern)
    write_file(_join(directory, f"step_{checkpoint.step:08d}.npz"), data)
    with _naming(directory, "written"):
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
    with _naming(directory, "read"):
        found = _steps(_files(directory).names(directory))
    names = list(found.values())
    for name, earlier in itertools.zip_longest(names, names[1:]):
        path = _join(directory, name)
        try:
            return _decoded(read_file(path))
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


@contextlib.contextmanager
def lock(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second writer out of a local directory until the block, or the process, ends however it ends.

    Filesystems without locks, and those of tf.io.gfile, are not guarded.

    Args:
        directory: to lock; made if it does not exist. The lock is held on its file `.lock`.

    Raises:
        ValueError: if another process has it, or the directory or its file cannot be made.
    """
    if _REMOTE.match(os.fspath(directory)):
        with _naming(directory, "written"):
            _Remote.make_directory(os.fspath(directory))
        yield
        return
    with _naming(directory, "written"):
        os.makedirs(directory, exist_ok=True)
        handle = os.open(_join(directory, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{os.fspath(directory)} is in use by another process; wait for it to end, or choose another directory"
            ) from error
        except OSError as error:
            # A filesystem that knows no locks is no reason to refuse a run.
            if error.errno not in _WITHOUT_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Replaces a file as a whole, readable by its owner only; its directory is made if it does not exist.

    Whatever happens, the file holds either what it held before or `data`. What a killed writer of the same file left is
    removed, so a file has one writer at a time.

    Args:
        path: local, or one that tf.io.gfile knows.
        data: everything that the file is to hold.

    Raises:
        ValueError: if it cannot be written.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    files = _files(path)
    with _naming(path, "written"):
        files.make_directory(folder)
        _remove_temporaries(folder, re.escape(name))
        try:
            files.write(temporary, data)
            files.rename(temporary, os.fspath(path))
        except BaseException:
            with contextlib.suppress(Exception):
                files.remove(temporary)
            raise


def read_file(path: str | os.PathLike) -> bytes:
    """Everything that a file holds.

    Args:
        path: local, or one that tf.io.gfile knows.

    Returns:
        Its bytes.

    Raises:
        ValueError: if it cannot be read.
    """
    with _naming(path, "read"):
        return _files(path).read(os.fspath(path))


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file, local or one that tf.io.gfile knows.

    Raises:
        ValueError: if its folder cannot be read.
    """
    folder, name = os.path.split(os.fspath(path))
    with _naming(path, "read"):
        return name in _files(path).names(folder or ".")


def clear(directory: str | os.PathLike) -> None:
    """Removes all checkpoints of a directory, whole or not.

    Raises:
        ValueError: if they cannot be removed.
    """
    files = _files(directory)
    with _naming(directory, "written"):
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


def _remove_temporaries(folder: str | os.PathLike, name: str) -> None:
    """Removes what killed writers of the files of that name, a pattern, left behind."""
    files = _files(folder)
    for found in files.names(folder or "."):
        if re.fullmatch(_TEMPORARY.format(name), found):
            files.remove(_join(folder, found))


def _join(directory: str | os.PathLike, name: str) -> str:
    return os.path.join(os.fspath(directory), name)


@contextlib.contextmanager
def _naming(path: str | os.PathLike, action: str) -> Iterator[None]:
    """Turns whatever a filesystem raises into one sentence that names the path."""
    try:
        yield
    except Exception as error:
        # TensorFlow's errors are no OSErrors, and have no type in common with anything else.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("tensorflow."):
            raise
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or type(error).__name__
        raise ValueError(f"{os.fspath(path)} cannot be {action}: {reason}") from error


def _files(path: str | os.PathLike) -> "type[_Local] | type[_Remote]":
    return _Remote if _REMOTE.match(os.fspath(path)) else _Local


class _Local:
    """Files of this machine: what is renamed is on the disk, and private from the start."""

    @staticmethod
    def names(directory: str | os.PathLike) -> list[str]:
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []

    @staticmethod
    def make_directory(folder: str) -> None:
        os.makedirs(folder or ".", exist_ok=True)

    @staticmethod
    def read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    @staticmethod
    def write(path: str, data: bytes) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def rename(source: str, target: str) -> None:
        os.replace(source, target)
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def remove(path: str) -> None:
        os.unlink(path)


class _Remote:
    """Files of every filesystem that TensorFlow knows."""

    @staticmethod
    def names(directory: str | os.PathLike) -> list[str]:
        directory = os.fspath(directory)
        return _gfile().listdir(directory) if _gfile().exists(directory) else []

    @staticmethod
    def make_directory(folder: str) -> None:
        _gfile().makedirs(folder)

    @staticmethod
    def read(path: str) -> bytes:
        with _gfile().GFile(path, "rb") as file:
            return file.read()

    @staticmethod
    def write(path: str, data: bytes) -> None:
        with _gfile().GFile(path, "wb") as file:
            file.write(data)

    @staticmethod
    def rename(source: str, target: str) -> None:
        _gfile().rename(source, target, overwrite=True)

    @staticmethod
    def remove(path: str) -> None:
        _gfile().remove(path)


def _gfile():
    """TensorFlow's files; imported where they are needed, since it takes seconds."""
    import tensorflow as tf

    return tf.io.gfile
