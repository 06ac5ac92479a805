"""Reports on a terminal, as text of a given width: tables that shorten names and drop columns but never cut a number.

The one place that turns a layout into a string, plain or with colours for a notebook. What comes out depends on the
width and on nothing else: not on the terminal, on a notebook that is running, or on ``FORCE_COLOR`` and ``NO_COLOR``.
"""

from __future__ import annotations

import io
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from fastcheck.findings import first_of
from fastcheck.judge.verdict import Verdict
from fastcheck.report import words
from fastcheck.report.report import Report

if TYPE_CHECKING:
    from fastcheck.selftest import SelfTestReport
    from fastcheck.terms import TermsReport

__all__ = [
    "STYLES",
    "Column",
    "as_html",
    "as_text",
    "graded",
    "plain",
    "render",
    "render_self_test",
    "render_terms",
    "shortened",
    "table",
    "width_here",
]

GAP = 2  # between columns
NARROWEST, USUAL, WIDEST = 60, 110, 120
SHORT = 16  # characters that a name keeps as long as a column can be dropped instead
LEAST = 6  # and that it keeps in any case
# Of a notebook: to be read on white and on black.
GREY, RED, GREEN, YELLOW, MAGENTA = (118, 128, 138), (214, 64, 74), (42, 146, 88), (178, 120, 16), (166, 84, 190)
COLOURS = TerminalTheme(GREY, GREY, [GREY, RED, GREEN, YELLOW, GREY, MAGENTA, GREY, GREY])
PRE = (
    "<pre style=\"font-family: ui-monospace, 'DejaVu Sans Mono', Consolas, monospace; line-height: 1.35\">{code}</pre>"
)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    title : str
        Its head.
    cells : sequence of str or Text
        One for each row.
    left : bool
        Whether it stands to the left, as words do; numbers stand to the right.
    drop : int
        Where there is no room for all columns the one with the largest goes first; 0 never goes.
    name : bool
        Whether its cells are names, which may be shortened.
    """

    title: str
    cells: Sequence[str | Text]
    left: bool = False
    drop: int = 0
    name: bool = False

    @property
    def width(self) -> int:
        """Terminal cells it takes."""
        return max(map(cell_len, (self.title, *map(str, self.cells))))

    def legible(self) -> Column:
        """Return the column with its names as people see them, without control characters."""
        return replace(self, cells=[words.name(str(cell)) for cell in self.cells]) if self.name else self

    def within(self, width: int) -> Column:
        """Return the column with its names shortened."""
        return replace(self, cells=[shortened(str(cell), width) for cell in self.cells])


def width_here() -> int:
    """Return the width for text: ``COLUMNS``, else the terminal's, else 110; at least 60 and at most 120."""
    return min(max(shutil.get_terminal_size((USUAL, 24)).columns, NARROWEST), WIDEST)


def plain(content: RenderableType, width: int) -> str:
    """Return text without escape codes and without blanks at the ends of its lines."""
    return "\n".join(line.rstrip() for line in _printed(content, width).export_text().splitlines())


def as_html(content: RenderableType, width: int) -> str:
    """Return text as an element of HTML, in colours that are readable on light and dark."""
    return _printed(content, width).export_html(theme=COLOURS, code_format=PRE, inline_styles=True)


def _printed(content: RenderableType, width: int) -> Console:
    # Whatever is not said here, rich asks of the environment: a notebook would get the text in place of the file.
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=100,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        force_interactive=False,
        no_color=False,
        highlight=False,
        legacy_windows=False,
    )
    console.print(content, crop=False)
    return console


def table(columns: Sequence[Column], width: int) -> Table:
    """Return a table that fits into the width: names are shortened first, then columns dropped, then names again."""
    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    fitted = _fitted([column.legible() for column in columns], width)
    for column in fitted:
        shown.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    for row in zip(*(column.cells for column in fitted), strict=True):
        # not a plain str, in which rich would read [...] as markup
        shown.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return shown


def _fitted(columns: list[Column], width: int) -> list[Column]:
    while (excess := sum(c.width for c in columns) + GAP * (len(columns) - 1) - width) > 0:
        droppable = max(columns, key=lambda c: c.drop)
        slack = sum(max(0, c.width - SHORT) for c in columns if c.name)
        if excess <= slack or not droppable.drop:
            return _squeezed(columns, excess)
        columns.remove(droppable)
    return columns


def _squeezed(columns: list[Column], excess: int) -> list[Column]:
    """Return the columns with so many cells taken from their names, from the widest first."""
    widths = {place: column.width for place, column in enumerate(columns) if column.name}
    for _ in range(excess):
        widest = max(widths, key=lambda place: widths[place])
        widths[widest] = max(LEAST, widths[widest] - 1)
    return [column.within(widths[place]) if place in widths else column for place, column in enumerate(columns)]


def shortened(name: str, width: int) -> str:
    """Return a name without its middle where it is too wide; an index in brackets at its end stays whole."""
    if cell_len(name) <= width:
        return name
    body, bracket, index = name.rpartition("[") if name.endswith("]") else (name, "", "")
    end = bracket + index
    room = max(1, width - cell_len(end) - 1)
    head, tail = body[: (room + 1) // 2], body[len(body) - room // 2 :]
    while cell_len(head + tail) > room and len(head + tail) > 1:  # of wide characters fewer have room
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}…{tail}{end}"


# -- a report: at most about 25 lines, whatever the size of the net ---------------------------------------------------


STYLES = {
    Verdict.CORRECT: "bold green",
    Verdict.ACCEPTABLE: "green",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.SUSPICIOUS: "bold magenta",
    Verdict.WRONG: "bold red",
}
LINES = 25
BLOCKS = 8
BLOCKS_BESIDE_COORDINATES = 5
COORDINATES, FEWEST = 6, 3
FINDINGS = 4


def render(report: Report, width: int) -> RenderableType:
    """Return the report for a rich console of so many characters, which decide what has room."""
    return Group(*_parts(report, width))


def as_text(report: Report, width: int | None = None) -> str:
    """Return the report as plain text, by default as wide as the terminal."""
    width = width or width_here()
    return plain(render(report, width), width)


def graded(verdict: Verdict) -> Text:
    """Return the word for a block's verdict, in its colour."""
    return Text(words.graded(verdict), style=STYLES[verdict])


def _parts(report: Report, width: int) -> Iterator[RenderableType]:
    headline = words.shown(report, words.headline(report))
    word, _, rest = headline.partition(":")
    closing, blocks = list(_closing(report)), _blocks(report, width)
    messages = [words.shown(report, finding.message) for finding in report.findings]
    messages = [message for message in messages if message not in headline]
    room = LINES - sum(_lines(text, width) for text in (headline, *map(str, closing))) - 1 - blocks.row_count
    yield Text.assemble((word, STYLES[report.verdict]), f":{rest}")
    yield blocks
    if report.wrong:
        first = sum(_lines(f"- {message}", width) for message in messages[:1]) + (len(messages) > 1)
        coordinates = _coordinates(report, width, min(COORDINATES, max(FEWEST, room - first - 2)))
        room -= 1 + coordinates.row_count
        yield coordinates
    yield from _findings(messages, room, width)
    yield from closing


def _findings(messages: list[str], room: int, width: int) -> Iterator[Text]:
    """Yield as many findings as the lines have room for, the first at any rate, and how many there are besides."""
    shown = 0
    for message in messages[:FINDINGS]:
        room -= _lines(f"- {message}", width)
        if shown and room < (1 if len(messages) > shown + 1 else 0):
            break
        yield Text(f"- {message}")
        shown += 1
    if len(messages) > shown:
        yield Text(f"  ({words.count(len(messages) - shown, 'more finding')} in report.findings)")


def _closing(report: Report) -> Iterator[Text]:
    """Yield what a pass says in its first line, what to do next, and how to run it again."""
    if report.passed:
        return
    advice = words.advice(report)
    if advice:
        yield Text(advice, style="italic")
    where = report.settings.get("where")
    loss = f"the loss in {words.legible(str(where))}" if where else "the loss"
    yield Text(
        f"{words.count(report.evaluations, 'evaluation')} of {loss}, {words.seconds(report.seconds)}, "
        f"{100 * report.coverage:.3g}% of the coordinates measured one by one",
        style="dim",
    )
    # one line however long it is: to be copied
    yield Text(f"to repeat: {words.replay(report.settings)}", style="dim", no_wrap=True, overflow="ignore")


def _lines(text: str, width: int) -> int:
    return len(textwrap.wrap(text, width))


def _blocks(report: Report, width: int) -> Table:
    ordered = words.block_order(report)
    rows = ordered[: BLOCKS_BESIDE_COORDINATES if report.wrong else BLOCKS]
    names, blocks = [name for name, _ in rows], [block for _, block in rows]
    more = [f"... {len(ordered) - len(rows):,} more"] if len(ordered) > len(rows) else []
    blank = [""] * len(more)
    columns = [
        Column("block", names + more, left=True, name=True),
        Column("shape", [words.shape(b.shape) for b in blocks] + blank, drop=3),
        Column("checked", [f"{b.checked:,}" for b in blocks] + blank, drop=4),
        Column("difference", [words.number(b.difference, 3) for b in blocks] + blank),
        Column("uncertainty", [words.number(b.uncertainty) for b in blocks] + blank, drop=2),
        Column("detectable", [words.number(b.detectable) for b in blocks] + blank, drop=1),
        Column("verdict", [*(graded(b.verdict) for b in blocks), *blank], left=True),
    ]
    return table(columns, width)


def _coordinates(report: Report, width: int, rows: int) -> Table:
    shown = report.wrong[:rows]
    total = sum(block.wrong for block in report.blocks.values())
    more = [f"... {total - len(shown):,} more"] if total > len(shown) else []
    blank = [""] * len(more)
    columns = [
        Column("coordinate", [c.name for c in shown] + more, left=True, name=True),
        Column("analytic", [f"{c.analytic:.8g}" for c in shown] + blank),
        Column("numerical", [words.with_uncertainty(c.numerical, c.uncertainty) for c in shown] + blank),
        Column("uncertainty", [words.number(c.uncertainty) for c in shown] + blank, drop=2),
        Column("", [words.ratio(c) for c in shown] + blank, left=True, drop=1),
    ]
    return table(columns, width)


# -- a self-test ------------------------------------------------------------------------------------------------------


NAMED = {True: "yes", False: "no", None: "-"}


def render_self_test(report: SelfTestReport, width: int) -> RenderableType:
    """Return the self-test for a rich console of so many characters."""
    found = sum(bug.found for bug in report.bugs)
    told = [bug for bug in report.bugs if bug.named is not None]
    head = (
        f"{'PASSED' if report.passed else 'FAILED'}: {found} of {words.count(len(report.bugs), 'planted bug')} found, "
        f"{sum(bool(bug.named) for bug in told)} of {len(told)} named rightly; "
        f"{words.count(report.evaluations, 'evaluation')} of the loss"
    )
    bugs = report.bugs
    columns = [
        Column("bug", [bug.kind for bug in bugs], left=True, name=True),
        Column("in", [first_of(bug.blocks, 2) for bug in bugs], left=True, name=True),
        Column("size", [words.number(bug.size) for bug in bugs], drop=2),
        Column("found", ["yes" if bug.found else "NO" for bug in bugs], left=True),
        Column("named", [NAMED[bug.named] for bug in bugs], left=True, drop=1),
        Column("first finding", [bug.finding or "-" for bug in bugs], left=True, drop=3),
        Column("smallest found", [words.number(bug.smallest) for bug in bugs]),
    ]
    return Group(Text(head, style="bold green" if report.passed else "bold red"), table(columns, width))


# -- the terms of a loss and their sum, a line each -------------------------------------------------------------------


def render_terms(report: TermsReport) -> RenderableType:
    """Return the terms for a rich console."""
    lines = [
        Text.assemble(
            (report.verdict.value.upper(), STYLES[report.verdict]),
            f": {words.count(len(report.terms), 'term')} and their sum",
        )
    ]
    for name, own in (*report.terms.items(), ("sum", report.sum)):
        word, _, rest = words.shown(own, words.headline(own)).partition(":")
        lines.append(Text.assemble(f"{words.name(name)}: ", (word, STYLES[own.verdict]), f":{rest}"))
    return Group(*lines, *(Text(f"- {words.shown(report.sum, finding.message)}") for finding in report.findings))
