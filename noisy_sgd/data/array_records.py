"""The records of ArrayRecord files by number, and one sentence about the file when one of them cannot be read.

A disk may fail during a run of days. The training loop gets an error of `fetch` as a `tf.errors.UnknownError` with
pages of traceback; `failure` extracts the sentence from it.

    records = array_records.Records(source=builder.as_data_source("train", ...), files=files)
    records.fetch(np.array([7, 1_281_166]))     # two serialized examples; what a tf.numpy_function calls

Covered by tests/data/imagenet_test.py.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

# More calls than are read ahead of the failing step.
_CALLS_KEPT = 256
_LOST = "`data_dir` can no longer be read"
_NO_JPEG = "`data_dir` holds an image that is not a complete JPEG"
_WAYS_OUT = "prepare the data set again, or set `corrupt_images` to skip"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFile:
    """One file of a split: its path, its size in bytes when the set was loaded, and how many examples it holds."""

    path: pathlib.Path
    size: int
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """The serialized examples of one split.

    Attributes:
        source: by number; `source[number]` is bytes, from any thread.
        files: in the order of the examples.
        rows: int64, the numbers of the examples that are kept, in order; None for all.
    """

    source: Any
    files: tuple[RecordFile, ...]
    rows: np.ndarray | None = None
    # The numbers of the last calls: an example that was read but could not be decoded is among them.
    recent: collections.deque = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_CALLS_KEPT), repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.source) if self.rows is None else len(self.rows)

    def fetch(self, indices: np.ndarray) -> np.ndarray:
        """The serialized examples of int64 [m], as bytes [m]; raises an OSError of one sentence."""
        numbers = (indices if self.rows is None else self.rows[indices]).tolist()
        self.recent.append(numbers)
        records, reason = self._read(numbers)
        if reason is None:
            return np.array(records, dtype=object)
        for number in numbers:
            _, reason_for_one = self._read([number])
            if reason_for_one is not None:
                raise OSError(self._lost(number, reason_for_one))
        raise OSError(f"{_LOST}: {reason}; resume")

    def _read(self, numbers: list[int]) -> tuple[list[bytes] | None, str | None]:
        """The records, or the reason why they cannot be read."""
        try:
            # Not `__getitems__`: it starts a pool of threads per call, which costs more than it saves.
            records = [self.source[number] for number in numbers]
        except Exception as error:  # array_record raises RuntimeError for every fault of a file.
            return None, " ".join(str(error).split())
        # A file that became shorter while it was open yields empty records, and no error.
        return (records, None) if all(records) else (None, "a record is empty")

    def place(self, number: int) -> tuple[RecordFile, int]:
        """The file of an example, and the example's position in it, from 0."""
        ends = np.cumsum([file.examples for file in self.files])
        index = int(np.searchsorted(ends, number, side="right"))
        return self.files[index], number - int(ends[index]) + self.files[index].examples

    def damaged(self, decodable: Callable[[bytes], bool]) -> str | None:
        """One sentence about the last read example that cannot be decoded; None if all can be."""
        for number in {number for numbers in list(self.recent) for number in numbers}:
            records, _ = self._read([number])
            if records is not None and not decodable(records[0]):
                file, place = self.place(number)
                return f"{_NO_JPEG}: record {place} of {file.path}; {_WAYS_OUT}"
        return None

    def _lost(self, number: int, reason: str) -> str:
        """One sentence about the file of an example that cannot be read."""
        file, _ = self.place(number)
        if not file.path.is_file():
            return f"{_LOST}: {file.path} no longer exists; put it back"
        size = file.path.stat().st_size
        if size != file.size:
            return f"{_LOST}: {file.path} has {size} bytes now and had {file.size}; put the original back"
        return f"{_LOST}: {file.path} cannot be read ({reason}); repair or replace it"


def failure(error: Exception) -> str | None:
    """The sentence in an error that iterating over a dataset raised; None if the error is about something else.

    Args:
        error: any error. TensorFlow raises `UnknownError` for a file, `InvalidArgumentError` for an invalid JPEG.
    """
    message = str(error)
    if is_no_jpeg(error):
        return f"{_NO_JPEG}; {_WAYS_OUT}"
    match = re.search(f"{re.escape(_LOST)}: .*", message)
    return match and match[0]


def is_no_jpeg(error: Exception) -> bool:
    """Whether a TensorFlow error says that an image could not be decoded."""
    return "Invalid JPEG" in str(error) or "jpeg::Uncompress failed" in str(error)
