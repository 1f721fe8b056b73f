"""Claims against records: what the paper says, what was measured here, and a verdict that code computes.

A claim is a row: a text, the paper's value, and a function from the recorded runs of one experiment to an `Outcome`.
A verdict is "reached", "not reached", or, where there are no records, "not run"; nothing else is possible.

    rows = report.judge(claims.IMAGES, results)
    report.write(rows, results, figures=[results / "figures" / "batch_size_sweep.png"], setting="digits, 5 seeds")
"""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Callable, Sequence

from noisy_sgd import records

REACHED, NOT_REACHED, NOT_RUN = "reached", "not reached", "not run"

_HEADER = ("claim", "paper", "here", "verdict")
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4em .6em; vertical-align: top;
border-bottom: 1px solid #ddd } img { max-width: 100% } .reached { color: #00724f } .not-reached { color: #b3401a }
.not-run { color: #777 } td:last-child { white-space: nowrap; font-weight: 600 }"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured, in words and numbers, and whether it bears the claim out."""

    here: str
    reached: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A row to be judged.

    Attributes:
        text: what is claimed, and by which rule it counts as reached.
        paper: the paper's own value and setting.
        experiment: the folder, below the results, of the runs that decide it.
        measure: from these runs, finished ones only, to an outcome; None where they do not hold what is needed.
    """

    text: str
    paper: str
    experiment: str
    measure: Callable[[Sequence[records.Record]], Outcome | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A judged claim."""

    claim: str
    paper: str
    here: str
    verdict: str


def judge(claims: Sequence[Claim], results: pathlib.Path) -> list[Row]:
    """Judges every claim by the runs recorded under `results`."""
    runs = {experiment: records.find(results / experiment) for experiment in {claim.experiment for claim in claims}}
    return [_judge(claim, runs[claim.experiment]) for claim in claims]


def write(
    rows: Sequence[Row], results: pathlib.Path, *, figures: Sequence[pathlib.Path], setting: str
) -> list[pathlib.Path]:
    """Writes report.md, which links the figures, and report.html, which contains them.

    Args:
        rows: from `judge`.
        results: the folder to write to.
        figures: PNG files below it.
        setting: how the results were made, in one paragraph.

    Returns:
        The two paths.
    """
    paths = [results / "report.md", results / "report.html"]
    for path, text in zip(
        paths, (_markdown(rows, results, figures, setting), _html(rows, figures, setting)), strict=True
    ):
        records.write_text(path, text)
    return paths


def _judge(claim: Claim, runs: Sequence[records.Record]) -> Row:
    outcome = claim.measure(runs) if runs else None
    if outcome is None:
        return Row(claim=claim.text, paper=claim.paper, here="", verdict=NOT_RUN)
    verdict = REACHED if outcome.reached else NOT_REACHED
    return Row(claim=claim.text, paper=claim.paper, here=outcome.here, verdict=verdict)


def _summary(rows: Sequence[Row]) -> str:
    verdicts = [row.verdict for row in rows]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (REACHED, NOT_REACHED, NOT_RUN))


def _cells(row: Row) -> tuple[str, ...]:
    return row.claim, row.paper, row.here or "-", row.verdict


def _markdown(rows: Sequence[Row], results: pathlib.Path, figures: Sequence[pathlib.Path], setting: str) -> str:
    lines = ["# Reproduction report", "", setting, "", f"{_summary(rows)}.", ""]
    lines += [f"| {' | '.join(_HEADER)} |", "|---" * len(_HEADER) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |")
    for figure in figures:
        lines += ["", f"![{figure.stem.replace('_', ' ')}]({figure.relative_to(results).as_posix()})"]
    return "\n".join(lines) + "\n"


def _html(rows: Sequence[Row], figures: Sequence[pathlib.Path], setting: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADER)
    body = ""
    for row in rows:
        *cells, verdict = map(html.escape, _cells(row))
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}"
        body += f'<td class="{verdict.replace(" ", "-")}">{verdict}</td></tr>\n'
    pictures = ""
    for figure in figures:
        data = base64.b64encode(figure.read_bytes()).decode()
        pictures += (
            f'<p><img src="data:image/png;base64,{data}" alt="{html.escape(figure.stem.replace("_", " "))}"></p>\n'
        )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Reproduction report</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>Reproduction report</h1>\n<p>{html.escape(setting)}</p>\n"
        f"<p>{_summary(rows)}.</p>\n<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n"
        f"{pictures}</body></html>\n"
    )
