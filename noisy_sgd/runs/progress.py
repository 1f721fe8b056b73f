"""Shows the progress of a long computation: as a bar on a terminal, as occasional lines in a log file.

with progress.Progress(total=100_000, unit="steps", stream=sys.stderr) as watch:
    watch.advance(512)
"""

import time
from collections.abc import Callable
from typing import TextIO

import tqdm


class Progress:
    """Counts the units that are done, and shows them with rate and remaining time.

    Args:
        total: number of units in total.
        unit: name of the units, in the plural.
        stream: where to write, such as `sys.stderr`.
        first: number of units that an earlier process completed. Defaults to 0.
        every: seconds between two lines if the stream is not a terminal. Defaults to 10.
        lines: approximate number of lines to write, which replaces `every`. Defaults to None.
        clock: returns the time in seconds from any fixed point. Defaults to `time.monotonic`.
    """

    def __init__(
        self,
        *,
        total: int,
        unit: str,
        stream: TextIO,
        first: int = 0,
        every: float = 10.0,
        lines: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._unit, self._stream, self._first, self._clock = total, unit, stream, first, clock
        self._every, self._part = every, None if lines is None else max(1, total // lines)
        self._done = self._written = first
        self._start = self._written_at = clock()
        self._news = ""
        bar = {"total": total, "initial": first, "file": stream, "unit": f" {unit}", "mininterval": 0.5}
        self._bar = tqdm.tqdm(**bar) if stream.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def advance(self, count: int = 1) -> None:
        """Adds units that are done; units beyond the total do not count."""
        self.reach(min(self._done + count, self._total))

    def reach(self, done: int, news: str | None = None, *, more: bool = False) -> None:
        """Sets the number of units that are done.

        Args:
            done: number of units, at most the total.
            news: text to show after the numbers from now on. Defaults to None, which keeps the current text.
            more: whether a later call brings news for the last line, which then waits for it. Defaults to False.
        """
        self._done = done
        self._news = self._news if news is None else news
        if self._bar is not None:
            self._bar.set_postfix_str(self._news, refresh=False)
            self._bar.update(done - self._bar.n)
        elif done > self._written and (not more if done == self._total else self._is_due()):
            self._write()

    def close(self) -> None:
        """Ends the line of the bar."""
        if self._bar is not None:
            self._bar.close()

    def _is_due(self) -> bool:
        if self._part is not None:
            return self._done // self._part > self._written // self._part
        return self._clock() - self._written_at >= self._every

    def _write(self) -> None:
        self._written, self._written_at = self._done, self._clock()
        rate = (self._done - self._first) / max(self._written_at - self._start, 1e-9)
        left = (self._total - self._done) / rate
        numbers = f"{self._done}/{self._total} {self._unit}, {rate:.3g} {self._unit}/s, {left:.0f} s left"
        self._stream.write(", ".join(filter(None, (numbers, self._news))) + "\n")
        self._stream.flush()
