"""What the experiments on toy problems share: the base of their settings, its checks, and the end of their `main`.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    num_paths: int = 200
    run_dir: str = "runs/sde_error"

Tested by tests/experiments/toy_binary.py.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments.support import endings

Draw = Callable[[records.Record, pathlib.Path], list[pathlib.Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user asked of an experiment; a subclass adds fields, and checks them when it is built."""

    run_dir: str

    def resolved(self) -> dict[str, Any]:
        """What the measurement depends on, as the run directory records it: everything but the directory."""
        described = dataclasses.asdict(self)
        del described["run_dir"]
        return described

    @property
    def unread(self) -> dict[str, str]:
        """The flags that mean nothing to this measurement, each with the reason; by default none."""
        return {}


def require_positive(name: str, value: float) -> None:
    """Refuses a typed number that is not positive, or not finite."""
    config.require(0 < value < math.inf, name, "must be positive and finite", value, "give a number above 0")


def require_noise_scale(*values: float) -> None:
    """Refuses a typed sigma that is negative, or not finite."""
    usable = all(0 <= value < math.inf for value in values)
    listed = ",".join(map(str, values))
    config.require(usable, "noise_scale", "must be at least 0 and finite", listed, "0 is SGD")


def draw(record: records.Record, draw_record: Draw) -> None:
    """Draws a record into its own directory, and prints the paths."""
    with endings.drawing():
        for path in draw_record(record, record.directory / "figures"):
            print(f"figure: {path}")
