"""Accelerators by their published peak numbers, and how many of them a run has.

    chosen = devices.topology("v5e:2x2x1")
    chosen.kind.memory, chosen.count        # 16 GiB, 4

Tested by tests/experiments/plan_test.py.
"""

import dataclasses
import math
import re

from noisy_sgd import config

_GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of device, one replica each.

    Attributes:
        memory: bytes.
        flops: per second, of matrix products in bfloat16, dense.
        float32_flops: per second, of matrix products of float32 weights as TensorFlow makes them by default.
        bandwidth: of the memory, bytes per second.
        link: bytes per second that a device sends to its neighbors, all links together.
        tpu: how libtpu calls a machine of four; None for a GPU.
        cycles: of a TPU's clock, per second.
    """

    memory: int
    flops: float
    float32_flops: float
    bandwidth: float
    link: float
    tpu: str | None = None
    cycles: float | None = None


# TPUs: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e; their clocks follow from the peak and the size of the matrix units.
# float32 products are made in bfloat16 there. GPUs: NVIDIA's data sheets (dense; float32 as TF32; NVLink one way).
KINDS = {
    "v4": Kind(
        memory=32 * _GIB, flops=275e12, float32_flops=275e12, bandwidth=1.2e12, link=300e9, tpu="v4-8", cycles=1.05e9
    ),
    "v5e": Kind(
        memory=16 * _GIB, flops=197e12, float32_flops=197e12, bandwidth=0.81e12, link=200e9, tpu="v5litepod-4",
        cycles=1.5e9,
    ),
    "v5p": Kind(
        memory=95 * _GIB, flops=459e12, float32_flops=459e12, bandwidth=2.76e12, link=600e9, tpu="v5p-8", cycles=1.75e9
    ),
    "v6e": Kind(
        memory=32 * _GIB, flops=918e12, float32_flops=918e12, bandwidth=1.64e12, link=448e9, tpu="v6e-4", cycles=1.75e9
    ),
    "a100": Kind(memory=80 * _GIB, flops=312e12, float32_flops=156e12, bandwidth=2.04e12, link=300e9),
    "h100": Kind(memory=80 * _GIB, flops=989e12, float32_flops=495e12, bandwidth=3.35e12, link=450e9),
    "h200": Kind(memory=141 * _GIB, flops=989e12, float32_flops=495e12, bandwidth=4.8e12, link=450e9),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind: `name` as typed, their kind and their number."""

    name: str
    kind: Kind
    count: int


def topology(name: str) -> Topology:
    """The devices of "v5e:2x2x1" (a TPU slice, by its axes) or "h100:8" (GPUs)."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    kind = KINDS.get(match[1]) if match else None
    count = math.prod(map(int, match[2].split("x"))) if match else 0
    shaped = kind is not None and count > 0 and (kind.tpu is not None) == ("x" in match[2])
    constraint = f"must be a kind of device ({', '.join(KINDS)}) and how many of them"
    config.require(shaped, "topology", constraint, name, "such as v5e:2x2x1 for four TPUs or h100:8 for eight GPUs")
    return Topology(name, kind, count)
