"""Times of steps that take turns, by the clock and by the processor time of all threads.

Machines have slow minutes, and share them between steps that take turns. Other work changes processor times less.

    clock.in_turns({"sgd": step, "dp_sgd": other}, num_rounds=11)["sgd"].processor    # milliseconds
"""

import statistics
import time
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence

_Case = typing.TypeVar("_Case", bound=Hashable)


class Times(typing.NamedTuple):
    """Of one run, or medians over runs."""

    wall: float
    processor: float


def seconds(run: Callable[[], object]) -> Times:
    """What one call takes, in seconds."""
    start, used = time.perf_counter(), time.process_time()
    run()
    return Times(time.perf_counter() - start, time.process_time() - used)


def medians(found: Mapping[_Case, Sequence[Times]]) -> dict[_Case, Times]:
    """The medians of each case, in milliseconds.

    Args:
        found: seconds.
    """
    return {
        case: Times(*(1e3 * statistics.median(kind) for kind in zip(*times, strict=True)))
        for case, times in found.items()
    }


def in_turns(steps: Mapping[_Case, Callable[[], object]], num_rounds: int) -> dict[_Case, Times]:
    """The medians over the rounds, in each of which every step runs once, in milliseconds."""
    found = {case: [] for case in steps}
    for _ in range(num_rounds):
        for case, step in steps.items():
            found[case].append(seconds(step))
    return medians(found)
