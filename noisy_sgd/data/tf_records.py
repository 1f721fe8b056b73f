"""The records of TFRecord files by number: an index of their places, and one read for each record.

A TFRecord file is a chain of records: the length in 8 bytes, its checksum in 4, the data, and the data's checksum in 4.
Nothing in it says where the n-th record begins, so the lengths are read once, which takes a few seconds for a million
records in the cache of the operating system and minutes from a slow disk.

    source = tf_records.Source([("train.tfrecord-00000-of-00001", 1000)])
    source[7]        # bytes, from any thread

Covered by tests/data/imagenet_test.py.
"""

import concurrent.futures
import os
import pathlib
import struct
import threading
from collections.abc import Sequence

import numpy as np

_HEADER, _FOOTER = 12, 4
_READERS = 16


class Source:
    """Serialized examples by number, in the order of the files; the files stay open.

    The checksums are not tested: a changed JPEG is found when it is decoded.

    Args:
        files: the path of each file, and how many records it must hold.

    Raises:
        ValueError: for a file that is not a complete chain of so many records.
    """

    def __init__(self, files: Sequence[tuple[str | os.PathLike, int]]):
        paths = [pathlib.Path(path) for path, _ in files]
        with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
            self._starts = list(readers.map(_starts, paths, [count for _, count in files]))
        self._ends = np.cumsum([count for _, count in files])
        # Opened when they are read for the first time, as the files of ArrayRecord are, and once for all threads.
        self._paths, self._handles, self._opening = paths, {}, threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> bytes:
        index = int(np.searchsorted(self._ends, number, side="right"))
        starts = self._starts[index]
        place = number - int(self._ends[index]) + len(starts) - 1
        first, last = int(starts[place]) + _HEADER, int(starts[place + 1]) - _FOOTER
        with self._opening:
            if index not in self._handles:
                self._handles[index] = os.open(self._paths[index], os.O_RDONLY)
        data = os.pread(self._handles[index], last - first, first)
        if len(data) < last - first:
            raise OSError(f"{self._paths[index]} has become shorter")
        return data

    def __del__(self):
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)


def _starts(path: pathlib.Path, count: int) -> np.ndarray:
    """Where each record of a file begins, and where the last one ends, int64 [count + 1]."""
    size, place, starts = path.stat().st_size, 0, [0]
    handle = os.open(path, os.O_RDONLY)
    try:
        while place < size:
            header = os.pread(handle, _HEADER, place)
            if len(header) < _HEADER:
                break
            place += _HEADER + struct.unpack("<Q", header[:8])[0] + _FOOTER
            starts.append(place)
    finally:
        os.close(handle)
    if place != size or len(starts) != count + 1:
        raise ValueError(
            f"`data_dir` must hold complete TFRecord files, but {path} does not hold {count} records in its {size} "
            "bytes; prepare the data set again"
        )
    return np.array(starts, np.int64)
