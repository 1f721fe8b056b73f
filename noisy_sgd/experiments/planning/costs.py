"""From what the compiler says about the parts of a step to hours of a run.

Tested by tests/experiments/plan_test.py.
"""

import bisect
from collections.abc import Callable, Sequence
from typing import Any

from noisy_sgd.experiments.planning import devices


def seconds(part: dict[str, Any], kind: devices.Kind, precision: str) -> float:
    """The estimated time of a program: XLA's own for a TPU, the larger of arithmetic and memory for a GPU.

    Args:
        part: from `compiling.compiled`.
        kind: of the device.
        precision: of the layers, "float32" or "bfloat16".
    """
    if part["cycles"]:
        return part["cycles"] / kind.cycles
    flops = kind.flops if precision == "bfloat16" else kind.float32_flops
    return max(part["flops"] / flops, part["bytes_accessed"] / kind.bandwidth)


def all_reduce_bytes(num_parameters: int, replicas: int) -> float:
    """What each replica sends for one sum over all of them, in a ring: 2 (R - 1) / R times the float32 gradients."""
    return 4.0 * num_parameters * 2 * (replicas - 1) / replicas


def microbatch_sizes(batch_size: int, replicas: int) -> list[int]:
    """The sizes that a run may have, up to its share of a logical batch on each replica: divisors, in order."""
    largest = -(-batch_size // replicas)
    return [size for size in range(1, largest + 1) if batch_size % size == 0]


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of rising sizes that fits, by bisection; None if the smallest does not."""
    place = bisect.bisect_left(sizes, True, key=lambda size: not fits(size))
    return sizes[place - 1] if place else None
