"""One measurement from first to last line, with its record; finished, it is read and not made again.

    record = recorded_measurement.run(directory, {"seed": 0}, measure, total=10, unit="measurements")

An interrupted measurement is made from its beginning: it takes minutes, and half of one proves nothing.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from noisy_sgd import records
from noisy_sgd.experiments import flags, progress

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
        recorded = records.create(directory, configuration, privacy=PRIVACY)
    print(f"{directory}: {total:,} {unit}", flush=True)
    with progress.Progress(total=total, unit=unit, stream=sys.stderr) as watch:
        results = measure(recorded.append, watch.advance)
    recorded.finish(results)
    return records.read(directory)
