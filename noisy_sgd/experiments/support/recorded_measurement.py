"""One measurement from first to last line, with its record; finished, it is read and not made again.

    record = recorded_measurement.run(directory, {"seed": 0}, measure, total=10, unit="measurements")

An interrupted measurement is made from its beginning: it takes minutes, and half of one proves nothing.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import endings, toy_problems
from noisy_sgd.runs import checkpoints, progress

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
) -> records.Record:
    """Measures and records, unless the directory holds this measurement, finished.

    Args:
        directory: the run directory; one that cannot be used ends the program in one sentence.
        configuration: what the measurement is a function of.
        measure: called with a function that records a line and one that counts what is done; returns the results.
        total: how much will be counted.
        unit: what is counted, in the plural.

    Returns:
        The finished record.
    """
    with flags.refusals():
        records.check(directory, configuration)
        if records.is_finished(directory, configuration):
            print(f"{directory} is finished.", flush=True)
            return records.read(directory)
    with begun(directory, configuration, privacy=PRIVACY) as recorded, endings.measurement_failures():
        print(f"{directory}: {total:,} {unit}", flush=True)
        with progress.Progress(total=total, unit=unit, stream=sys.stderr) as watch:
            results = measure(recorded.append, watch.advance)
        recorded.finish(results)
        return records.read(directory)


@contextlib.contextmanager
def begun(
    directory: str | os.PathLike, configuration: Mapping[str, Any], *, privacy: Mapping[str, Any]
) -> Iterator[records.Run]:
    """A record from its first line on, that no other process writes to; bad places end in one sentence and status 2."""
    with contextlib.ExitStack() as stack:
        with flags.refusals():
            # What another process may be writing is left as it stands until its lock is free.
            records.reopen(directory, configuration, privacy=privacy)
            stack.enter_context(checkpoints.lock(directory))
            recorded = records.create(directory, configuration, privacy=privacy)
        yield recorded


def over_data_sets(
    settings: toy_problems.Family,
    measure: Callable[..., Iterable[Mapping[str, Any]]],
    summarize: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]],
) -> records.Record:
    """Measures one data set after the other, unless all of that is finished.

    Args:
        settings: the family of data sets, and how each is measured.
        measure: from data seeds, `num_runs` and `num_steps` to lines.
        summarize: from the lines of all data sets to the results.

    Returns:
        The finished record.
    """

    def measured(append, advance):
        lines = []
        for data_seed in range(settings.num_data_sets):
            for line in measure((data_seed,), num_runs=settings.num_runs, num_steps=settings.num_steps):
                append(line)
                lines.append(line)
            advance(1)
        return summarize(lines)

    return run(settings.run_dir, settings.resolved(), measured, total=settings.num_data_sets, unit="data sets")
