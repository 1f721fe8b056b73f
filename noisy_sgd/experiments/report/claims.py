"""Claims against records: what the paper says, what was measured here, and a verdict that code computes.

A claim is a row: a text, the paper's value, and a function from the recorded runs of one experiment to an `Outcome`.
A verdict is "reached", "not reached", or, where there are no records, "not run"; nothing else is possible.

    rows = claims.judge(image_claims.CLAIMS, results)
    rows[0].verdict, rows[0].here
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from noisy_sgd import records

REACHED, NOT_REACHED, NOT_RUN = "reached", "not reached", "not run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured, in words and numbers, and whether the claim is reached."""

    here: str
    reached: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that can be judged.

    Attributes:
        text: the claim, and the rule by which it counts as reached.
        paper: the paper's own value and setting.
        experiment: the folder, below the results, of the runs that decide the claim.
        measure: from these runs, finished ones only, to an outcome; None if they do not hold what is needed.
        run: the name of the one run that decides. Defaults to None: all of them do.
    """

    text: str
    paper: str
    experiment: str
    measure: Callable[[Sequence[records.Record]], Outcome | None]
    run: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A judged claim."""

    claim: str
    paper: str
    here: str
    verdict: str


def of_run(
    text: str, paper: str, experiment: str, name: str, measure: Callable[[records.Record], Outcome | None]
) -> Claim:
    """A claim that one run decides: the experiment's run in the folder of this `name`."""

    def measure_named(runs: Sequence[records.Record]) -> Outcome | None:
        return next((measure(run) for run in runs if run.directory.name == name), None)

    return Claim(text=text, paper=paper, experiment=experiment, measure=measure_named, run=name)


def judge(claimed: Sequence[Claim], results: pathlib.Path) -> list[Row]:
    """Judges every claim by the runs recorded under `results`."""
    runs = {experiment: records.find(results / experiment) for experiment in {claim.experiment for claim in claimed}}
    return [_judge(claim, runs[claim.experiment]) for claim in claimed]


def judge_runs(claimed: Sequence[Claim], runs: Sequence[records.Record]) -> list[Row]:
    """Judges every claim by these runs, wherever they are recorded."""
    return [_judge(claim, runs) for claim in claimed]


def _judge(claim: Claim, runs: Sequence[records.Record]) -> Row:
    outcome = claim.measure(runs) if runs else None
    if outcome is None:
        return Row(claim=claim.text, paper=claim.paper, here="", verdict=NOT_RUN)
    verdict = REACHED if outcome.reached else NOT_REACHED
    return Row(claim=claim.text, paper=claim.paper, here=outcome.here, verdict=verdict)
