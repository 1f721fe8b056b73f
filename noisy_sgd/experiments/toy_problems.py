"""What a user asked of the toy problems, checked: one frozen dataclass a binary, as in `config`.

Theory(share=0.1).resolved()      # what the run directory records
"""

import dataclasses
import math
from typing import Any

from noisy_sgd import config


def _require_share(name: str, value: float) -> None:
    config.require(0 < value <= 1, name, "must lie above 0 and be at most 1", value, "1 is the whole measurement")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theory:
    """The theory's rows of the quick report; a `share` below 1 takes that part of the runs, steps and data sets."""

    num_data_sets: int = 16
    num_runs: int = 5
    num_steps: int = 30_000
    share: float = 1.0

    def __post_init__(self):
        _require_share("theory_share", self.share)

    def part(self, number: int, smallest: int = 2) -> int:
        """So much of `number`, rounded up."""
        return max(smallest, math.ceil(self.share * number))

    def resolved(self) -> dict[str, Any]:
        """What the measurements are a function of."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Everything that a report compares with the paper; `run_dir` holds a folder for each experiment."""

    run_dir: str
    sweep: config.Sweep
    theory: Theory
