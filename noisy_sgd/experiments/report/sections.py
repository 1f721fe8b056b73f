"""The parts of a report: for each experiment its rows, its figures, and the runs behind them.

    section = sections.Section(name="audit", heading=audit.heading, rows=rows, figures=figures, runs=runs)

Tested by tests/experiments/report/pages_test.py.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from noisy_sgd import records
from noisy_sgd.experiments.report import claims


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """What made the numbers of a section.

    Attributes:
        command: that makes or resumes the runs.
        made: on which machines and days, and in how much time; empty for records of older versions.
    """

    command: str
    made: str = ""

    @classmethod
    def of(cls, command: str, found: Sequence[records.Record]) -> "Runs":
        """The runs of these finished records."""
        made = [record.made for record in found if record.made]
        if not made:
            return cls(command=command)
        count = f"{len(made)} runs, " if len(made) > 1 else ""
        days = sorted({one["day"] for one in made})
        period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        machines = "; ".join(sorted({one["machine"] for one in made}))
        return cls(
            command=command, made=f"{count}{_duration(sum(one['seconds'] for one in made))}, {period}, {machines}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """What one experiment contributes.

    Attributes:
        name: of the experiment; the section's address in the page.
        heading: one line.
        rows: its judged claims.
        figures: PNG files.
        runs: what made them.
        failures: why runs of it are missing, each in one sentence.
    """

    name: str
    heading: str
    rows: Sequence[claims.Row] = ()
    figures: Sequence[pathlib.Path] = ()
    runs: Sequence[Runs] = ()
    failures: Sequence[str] = ()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
