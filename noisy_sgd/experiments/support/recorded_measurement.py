"""One recorded measurement, from the first line to the last: a finished one is read, and not made again.

    record = recorded_measurement.run(directory, {"seed": 0}, measure, total=10, unit="measurements")

An interrupted measurement starts from its beginning: it takes minutes, and half of it proves nothing.

Tested by tests/experiments/least_squares_test.py.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from noisy_sgd import files, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import endings
from noisy_sgd.runs import progress

PRIVACY = {"text": "No privacy guarantee: the data are synthetic, and no gradient is clipped."}

Append = Callable[[Mapping[str, Any]], None]
Advance = Callable[[int], None]


def run(
    directory: str | os.PathLike,
    configuration: Mapping[str, Any],
    measure: Callable[[Append, Advance], Mapping[str, Any]],
    *,
    total: int,
    unit: str,
    privacy: Mapping[str, Any] = PRIVACY,
) -> records.Record:
    """Measures and records, unless the directory holds this measurement, finished.

    Args:
        directory: the run directory. If it cannot be used, the program ends in one sentence.
        configuration: all values that the measurement depends on.
        measure: called with a function that records a line and a function that counts progress; returns the results.
        total: the count at the end.
        unit: what is counted, in the plural.
        privacy: what the record says about privacy. Defaults to the sentence for synthetic data.

    Returns:
        The finished record.
    """
    with flags.refusals():
        records.check(directory, configuration)
        if records.is_finished(directory, configuration):
            print(f"{directory} is finished.", flush=True)
            return records.read(directory)
    with begin(directory, configuration, privacy=privacy) as recorded, endings.measurement_failures():
        print(f"{directory}: {total:,} {unit}", flush=True)
        with progress.Progress(total=total, unit=unit, stream=sys.stderr) as watch:
            results = measure(recorded.append, watch.advance)
        recorded.finish(results)
        return records.read(directory)


@contextlib.contextmanager
def begin(
    directory: str | os.PathLike, configuration: Mapping[str, Any], *, privacy: Mapping[str, Any]
) -> Iterator[records.Run]:
    """Opens a new record, which no other process can write to; a bad directory ends in one sentence and status 2."""
    with contextlib.ExitStack() as stack:
        with flags.refusals():
            # Another process may be writing to the directory: nothing is changed before its lock is free.
            records.reopen(directory, configuration, privacy=privacy)
            stack.enter_context(files.lock(directory))
            recorded = records.create(directory, configuration, privacy=privacy)
        yield recorded
