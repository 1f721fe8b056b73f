"""Files that are replaced as a whole, directories that appear as a whole, and the lock of a directory.

A file is written under another name in the same directory, flushed to the disk and renamed. If the process is killed,
the file holds either all of its old contents or all of its new contents. A path is local, or one of tf.io.gfile, such
as "gs://bucket/run".

    files.write("runs/first/run.json", '{"status": "running"}')
    with files.lock("runs/first"):    # ValueError where another process has it
        files.write_private("runs/first/ledger.jsonl", b"")
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterator

_TEMPORARY = r"\.{}\.[0-9a-f]{{16}}\.tmp"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def write(path: str | os.PathLike, data: str | bytes) -> None:
    """Replaces a file as a whole.

    Args:
        path: local, or one that tf.io.gfile knows.
        data: the new contents; text is encoded as UTF-8.

    Raises:
        OSError: naming the file, if it cannot be written; of tf.io.gfile, TensorFlow's errors.
    """
    _replace(os.fspath(path), data.encode() if isinstance(data, str) else data, 0o644)


def write_private(path: str | os.PathLike, data: bytes) -> None:
    """Replaces a file as a whole, readable by its owner only; its directory is made if it does not exist.

    Leftovers of a killed writer of the same file are removed, so only one process may write a file at a time.

    Args:
        path: local, or one that tf.io.gfile knows.
        data: the new contents.

    Raises:
        ValueError: if it cannot be written.
    """
    folder, name = os.path.split(os.fspath(path))
    with naming(path, "written"):
        _kind(path).make_directory(folder)
        remove_leftovers(folder, re.escape(name))
        _replace(os.fspath(path), data, 0o600)


def fill(path: str | os.PathLike, temporary: str | os.PathLike, writer: Callable[[], None]) -> None:
    """Replaces a local file by one that only a function can write.

    Args:
        path: the file.
        temporary: the file that the function writes, in the same directory.
        writer: called once.

    Raises:
        OSError: if it cannot be written.
    """
    with _renamed(os.fspath(temporary), os.fspath(path)):
        writer()
        _to_disk(os.fspath(temporary))


@contextlib.contextmanager
def new_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A local directory that appears in one rename, with all files that the block writes to the yielded directory.

    It replaces an empty directory, but not one that another process has filled meanwhile.

    Raises:
        OSError: if the directory cannot be made.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}")
    # The umask may remove further permissions.
    fresh.mkdir(mode=0o755)
    try:
        yield fresh
        fresh.rename(directory)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


@contextlib.contextmanager
def lock(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second writer out of a local directory until the block or the process ends, in any way.

    Filesystems without locks, and those of tf.io.gfile, are not locked.

    Args:
        directory: to lock; made if it does not exist. The lock is held on its file `.lock`.

    Raises:
        ValueError: if another process holds the lock, or the directory or its file cannot be made.
    """
    with naming(directory, "written"):
        _kind(directory).make_directory(os.fspath(directory))
        local = _kind(directory) is _Local
        handle = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT, 0o600) if local else None
    if handle is None:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{os.fspath(directory)} is in use by another process; wait for it to end, or choose another directory"
            ) from error
        except OSError as error:
            # A filesystem without locks is no reason to refuse a run.
            if error.errno not in _WITHOUT_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def read(path: str | os.PathLike) -> bytes:
    """The contents of a file.

    Args:
        path: local, or one that tf.io.gfile knows.

    Returns:
        The file's bytes.

    Raises:
        ValueError: if it cannot be read.
    """
    with naming(path, "read"):
        return _kind(path).read(os.fspath(path))


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file, local or one that tf.io.gfile knows.

    Raises:
        ValueError: if its folder cannot be read.
    """
    folder, name = os.path.split(os.fspath(path))
    with naming(path, "read"):
        return name in names(folder)


def names(directory: str | os.PathLike) -> list[str]:
    """The names of a directory's files; none where there is no such directory."""
    return _kind(directory).names(os.fspath(directory) or ".")


def remove(path: str | os.PathLike) -> None:
    """Removes a file."""
    _kind(path).remove(os.fspath(path))


def remove_leftovers(directory: str | os.PathLike, name: str) -> None:
    """Removes leftovers of killed writers of the files whose name matches a regular expression."""
    for candidate in names(directory):
        if re.fullmatch(_TEMPORARY.format(name), candidate):
            remove(os.path.join(directory, candidate))


@contextlib.contextmanager
def naming(path: str | os.PathLike, action: str) -> Iterator[None]:
    """Turns every error of a filesystem into one sentence that names the path.

    Raises:
        ValueError: "<path> cannot be <action>: <reason>".
    """
    try:
        yield
    except Exception as error:
        # TensorFlow's errors are not OSErrors, and share no type with other errors.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("tensorflow."):
            raise
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise ValueError(f"{os.fspath(path)} cannot be {action}: {reason or type(error).__name__}") from error


def _replace(path: str, data: bytes, mode: int) -> None:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        with _renamed(temporary, path):
            _kind(path).write(temporary, data, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


@contextlib.contextmanager
def _renamed(temporary: str, path: str) -> Iterator[None]:
    """Renames the file that the block writes, or removes it where the block fails."""
    try:
        yield
        _kind(path).rename(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            remove(temporary)
        raise


def _to_disk(path: str) -> None:
    """Waits until a local file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _kind(path: str | os.PathLike) -> "type[_Local] | type[_Remote]":
    return _Remote if _REMOTE.match(os.fspath(path)) else _Local


class _Local:
    """Files of this machine: a renamed file is on the disk, and has its permissions from the start."""

    @staticmethod
    def names(directory: str) -> list[str]:
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
    def write(path: str, data: bytes, mode: int) -> None:
        # The umask may remove further permissions.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def rename(source: str, target: str) -> None:
        os.replace(source, target)
        _to_disk(os.path.dirname(target) or ".")

    @staticmethod
    def remove(path: str) -> None:
        os.unlink(path)


class _Remote:
    """Files of every filesystem that TensorFlow knows; their permissions are the filesystem's own."""

    @staticmethod
    def names(directory: str) -> list[str]:
        return _gfile().listdir(directory) if _gfile().exists(directory) else []

    @staticmethod
    def make_directory(folder: str) -> None:
        _gfile().makedirs(folder)

    @staticmethod
    def read(path: str) -> bytes:
        with _gfile().GFile(path, "rb") as file:
            return file.read()

    @staticmethod
    def write(path: str, data: bytes, mode: int) -> None:
        with _gfile().GFile(path, "wb") as file:
            file.write(data)

    @staticmethod
    def rename(source: str, target: str) -> None:
        _gfile().rename(source, target, overwrite=True)

    @staticmethod
    def remove(path: str) -> None:
        _gfile().remove(path)


def _gfile():
    """TensorFlow's files; imported only when needed, since the import takes seconds."""
    import tensorflow as tf

    return tf.io.gfile
