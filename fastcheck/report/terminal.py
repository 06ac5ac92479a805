"""The report on a terminal: at most about 25 lines, whatever the size of the net."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastcheck.judge.verdict import Verdict
from fastcheck.report import words
from fastcheck.report.report import Report
from fastcheck.report.tables import Column, plain, table, width_here

__all__ = ["STYLES", "as_text", "graded", "render"]

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
