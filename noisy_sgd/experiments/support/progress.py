"""How far a measurement is, for the person who waits: a bar on a terminal, now and then a line elsewhere.

with progress.Progress(total=100_000, unit="steps", stream=sys.stderr) as watch:
    watch.advance(512)
"""

import time
from collections.abc import Callable
from typing import TextIO

import tqdm


class Progress:
    """Counts what is done.

    Args:
        total: how much there is.
        unit: what is counted, in the plural.
        stream: where to write, such as `sys.stderr`.
        every: seconds between two lines where there is no terminal. Defaults to 10.
        clock: seconds since anything. Defaults to `time.monotonic`.
    """

    def __init__(
        self, *, total: int, unit: str, stream: TextIO, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ):
        self._total, self._unit, self._stream, self._every, self._clock = total, unit, stream, every, clock
        self._done = 0
        self._start = self._written = clock()
        self._bar = tqdm.tqdm(total=total, file=stream, unit=f" {unit}", mininterval=0.5) if stream.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        """Adds what has just been done; what goes beyond the total does not count."""
        count = min(count, self._total - self._done)
        self._done += count
        now = self._clock()
        if self._bar is not None:
            self._bar.update(count)
        elif count and (self._done == self._total or now - self._written >= self._every):
            self._written = now
            elapsed = now - self._start
            left = elapsed / self._done * (self._total - self._done)
            self._stream.write(f"{self._done}/{self._total} {self._unit}, {elapsed:.0f} s, {left:.0f} s left\n")
            self._stream.flush()
