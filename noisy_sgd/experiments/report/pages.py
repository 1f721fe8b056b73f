"""The pages of a report: report.md, which links the figures, and report.html, which contains them.

    pages.write(found, results, setting="digits, 5 seeds")      # found: a list of sections.Section

report.html stands alone: no network, no script. It is readable at the width of a phone, in the dark and printed.

Tested by tests/experiments/report/pages_test.py.
"""

import base64
import html
import pathlib
from collections.abc import Sequence

from noisy_sgd import files
from noisy_sgd.experiments.report import claims, mistakes, typesetting
from noisy_sgd.experiments.report.sections import Section
from noisy_sgd.figures import canvas

TITLE = "Implicit bias in Noisy-SGD: what was measured"
PAPER = "https://arxiv.org/abs/2402.08344"
_HEADER = ("claim", "source says", "measured here", "verdict")
_HOW_TO_READ = (
    "Every row is a claim of the paper, or of a related paper that it names, with the rule by which the claim counts "
    "as reached. The rules were written before the runs that they judge. Verdicts are computed from the records: "
    "reached, not reached, or not run; nothing else is possible. Brackets hold 95 % intervals unless a row says "
    "otherwise. The sample is stated in the row, the command below its section; the same command makes the numbers "
    "again."
)
_MISTAKES = "Mistakes and omissions in the paper"
_MISTAKES_HEADER = ("place", "printed", "correct", "shown here by")
_BY_READING = "reading, or a calculation"

_STYLE = """
:root { --ink: #1b1b1b; --soft: #5c5c5c; --line: #d8d8d8; --paper: #fff; --link: #0b5cad; --yes: #00694a; --no: #a83410;
  color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e3; --soft: #a9a6a1; --line: #44423f; --paper: #181716;
  --link: #7db8f0; --yes: #5fce9f; --no: #f19a76 } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { line-height: 1.2 } h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; line-height: 1.3 }
a { color: var(--link) } .soft, figcaption, nav span { color: var(--soft); font-size: .9rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem .45rem 0; border-bottom: 1px solid var(--line) }
td:last-child { width: 7rem; font-weight: 600 } .prose td:last-child { width: 30%; font-weight: 400 }
.reached { color: var(--yes) } .not-reached { color: var(--no) } .not-run { color: var(--soft) }
figure { margin: 1.5rem 0 } img { max-width: 100%; background: #fff; border-radius: 4px } code { font-size: .85rem }
nav ul { columns: 2; padding-left: 1.2rem } nav li { break-inside: avoid; margin-bottom: .3rem }
@media (max-width: 45rem) { nav ul { columns: 1 } thead { display: none }
  tr { display: block; padding: .8rem 0; border-bottom: 1px solid var(--line) }
  td, td:last-child, .prose td:last-child { display: block; width: auto; border: 0; padding: .15rem 0 }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); font-size: .85rem; font-weight: 400 } }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --yes: #000; --no: #000 } body { max-width: none;
  margin: 0; font-size: 10pt } tr, figure { break-inside: avoid } nav { display: none } .page { break-before: page } }
"""


def write(found: Sequence[Section], results: pathlib.Path, *, setting: str) -> list[pathlib.Path]:
    """Writes report.md, which links the figures, and report.html, which contains them.

    Args:
        found: the sections, whose figures lie below `results`.
        results: the folder to write to.
        setting: how the results were made, in one paragraph.

    Returns:
        The two paths.
    """
    pages = {"report.md": _markdown(found, results, setting), "report.html": _html(found, setting)}
    for name, text in pages.items():
        files.write(results / name, text)
    return [results / name for name in pages]


def _rows(found: Sequence[Section]) -> list[claims.Row]:
    return [row for section in found for row in section.rows]


def _summary(rows: Sequence[claims.Row]) -> str:
    verdicts = [row.verdict for row in rows]
    possible = (claims.REACHED, claims.NOT_REACHED, claims.NOT_RUN)
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in possible)


def _cells(row: claims.Row) -> tuple[str, ...]:
    return row.claim, row.paper, row.here or "-", row.verdict


def _mistakes(rows: Sequence[claims.Row]) -> list[tuple[str, ...]]:
    """The cells of the table of mistakes, with the report's own measurements."""
    cells = []
    for mistake in mistakes.MISTAKES:
        row = mistakes.row(mistake, rows)
        if mistake.shown_by is None:
            shown = _BY_READING
        else:
            shown = row.here if row is not None and row.here else f"not run: {mistake.shown_by} ..."
        cells.append((mistake.place, mistake.printed, mistake.correct, shown))
    return cells


def _title(figure: pathlib.Path) -> str:
    return figure.stem.replace("_", " ").capitalize()


def _markdown(found: Sequence[Section], results: pathlib.Path, setting: str) -> str:
    rows = _rows(found)
    lines = [f"# {TITLE}", "", f"The paper: {PAPER}", "", _HOW_TO_READ, "", setting, "", f"{_summary(rows)}."]
    for section in found:
        lines += ["", f"## {section.heading}", ""]
        lines += [f"Failed: {failure}" for failure in section.failures]
        if section.rows:
            lines += _table(_HEADER, [_cells(row) for row in section.rows])
        for figure in section.figures:
            lines += ["", f"![{_title(figure)}]({figure.relative_to(results).as_posix()})", "", canvas.caption(figure)]
        for runs in section.runs:
            lines += ["", f"`{runs.command}`{f' ({runs.made})' if runs.made else ''}"]
    lines += ["", f"## {_MISTAKES}", "", *_table(_MISTAKES_HEADER, _mistakes(rows))]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _html(found: Sequence[Section], setting: str) -> str:
    rows = _rows(found)
    contents = "\n".join(
        f'<li><a href="#{section.name}">{typesetting.html(section.heading)}</a>'
        f"{f' <span>({_summary(section.rows)})</span>' if section.rows else ''}</li>"
        for section in found
    )
    wrong = _html_table(_MISTAKES_HEADER, _mistakes(rows), ' class="prose"')
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon: otherwise a browser asks the network for one.
        f'<title>{TITLE}</title><link rel="icon" href="data:,">\n<style>{_STYLE}</style></head><body>\n'
        f'<h1>{TITLE}</h1>\n<p>Against <a href="{PAPER}">the paper</a> of Sander, Sylvestre and Durmus (AISTATS 2024) '
        f"and its relatives: <strong>{_summary(rows)}</strong>.</p>\n<p>{_HOW_TO_READ}</p>\n"
        f'<p class="soft">{typesetting.html(setting)}</p>\n'
        f'<nav aria-label="Contents"><ul>\n{contents}\n<li><a href="#mistakes">{_MISTAKES}</a></li></ul></nav>\n'
        f"{''.join(map(_html_section, found))}"
        f'<section id="mistakes" class="page"><h2>{_MISTAKES}</h2>\n{wrong}</section>\n</body></html>\n'
    )


def _html_section(section: Section) -> str:
    parts = [f'<section id="{section.name}"><h2>{typesetting.html(section.heading)}</h2>\n']
    parts += [f'<p class="not-reached">Failed: {html.escape(failure)}</p>\n' for failure in section.failures]
    if section.rows:
        parts.append(_html_table(_HEADER, [_cells(row) for row in section.rows], ""))
    for figure in section.figures:
        data = base64.b64encode(figure.read_bytes()).decode()
        caption = typesetting.html(canvas.caption(figure))
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(_title(figure))}">\n'
            f"<figcaption><strong>{html.escape(_title(figure))}.</strong> {caption}</figcaption></figure>\n"
        )
    for runs in section.runs:
        made = f"<br>{html.escape(runs.made)}" if runs.made else ""
        parts.append(f'<p class="soft"><code>{html.escape(runs.command)}</code>{made}</p>\n')
    return "".join([*parts, "</section>\n"])


def _html_table(header: Sequence[str], cells: Sequence[Sequence[str]], attributes: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in header)
    body = ""
    for row in cells:
        body += "<tr>"
        for name, cell in zip(header, row, strict=True):
            look = f' class="{cell.replace(" ", "-")}"' if name == "verdict" else ""
            body += f'<td data-label="{name}"{look}>{typesetting.html(cell)}</td>'
        body += "</tr>\n"
    return f"<table{attributes}><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n"
