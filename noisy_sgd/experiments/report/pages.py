"""The pages of a report: report.md, which links the figures, and report.html, which contains them.

pages.write(rows, results, figures=[results / "figures" / "batch_size_sweep.png"], setting="digits, 5 seeds")

Tested by tests/experiments/report/claims_test.py.
"""

import base64
import html
import pathlib
from collections.abc import Sequence

from noisy_sgd import files
from noisy_sgd.experiments.report import claims

_HEADER = ("claim", "paper", "here", "verdict")
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4em .6em; vertical-align: top;
border-bottom: 1px solid #ddd } img { max-width: 100% } .reached { color: #00724f } .not-reached { color: #b3401a }
.not-run { color: #777 } td:last-child { white-space: nowrap; font-weight: 600 }"""


def write(
    rows: Sequence[claims.Row], results: pathlib.Path, *, figures: Sequence[pathlib.Path], setting: str
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
        files.write(path, text)
    return paths


def _summary(rows: Sequence[claims.Row]) -> str:
    verdicts = [row.verdict for row in rows]
    possible = (claims.REACHED, claims.NOT_REACHED, claims.NOT_RUN)
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in possible)


def _cells(row: claims.Row) -> tuple[str, ...]:
    return row.claim, row.paper, row.here or "-", row.verdict


def _markdown(rows: Sequence[claims.Row], results: pathlib.Path, figures: Sequence[pathlib.Path], setting: str) -> str:
    lines = ["# Reproduction report", "", setting, "", f"{_summary(rows)}.", ""]
    lines += [f"| {' | '.join(_HEADER)} |", "|---" * len(_HEADER) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |")
    for figure in figures:
        lines += ["", f"![{figure.stem.replace('_', ' ')}]({figure.relative_to(results).as_posix()})"]
    return "\n".join(lines) + "\n"


def _html(rows: Sequence[claims.Row], figures: Sequence[pathlib.Path], setting: str) -> str:
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
