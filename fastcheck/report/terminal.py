"""The report on a terminal: at most about 25 lines, whatever the size of the net."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastcheck.report import words
from fastcheck.report.report import Report
from fastcheck.verdict import Verdict

__all__ = ["as_text", "render"]

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
COORDINATES = 6
FINDINGS = 4
WIDTH = 110  # of plain text, and assumed where findings are counted in lines


def render(report: Report, width: int = WIDTH) -> RenderableType:
    """Return the report for a rich console; the width, in characters, decides how many findings have room."""
    return Group(*_parts(report, width))


def as_text(report: Report, width: int = WIDTH) -> str:
    """Return the report as plain text."""
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    console.print(render(report, width))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _parts(report: Report, width: int) -> Iterator[RenderableType]:
    headline = words.shown(report, words.headline(report))
    word, _, rest = headline.partition(":")
    tables = [_blocks(report)] + ([_coordinates(report)] if report.wrong else [])
    closing = list(_closing(report))
    taken = _lines(headline, width) + sum(1 + table.row_count for table in tables) + len(closing)
    yield Text.assemble((word, STYLES[report.verdict]), f":{rest}")
    yield from tables
    messages = [words.shown(report, finding.message) for finding in report.findings]
    yield from _findings([message for message in messages if message not in headline], LINES - taken, width)
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
    """Yield what a pass says in its first line, and what to do next."""
    if report.passed:
        return
    advice = words.advice(report)
    if advice:
        yield Text(advice, style="italic")
    seed = words.name(str(report.settings.get("seed")))
    yield Text(
        f"{words.count(report.evaluations, 'evaluation')} of the loss, {words.seconds(report.seconds)}, "
        f"{100 * report.coverage:.3g}% of the coordinates measured one by one, seed {seed}",
        style="dim",
    )


def _lines(text: str, width: int) -> int:
    return len(textwrap.wrap(text, width))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("block", "verdict", "coordinate", "") else "right", no_wrap=True
        )
    return table


def _blocks(report: Report) -> Table:
    table = _table("block", "shape", "checked", "difference", "uncertainty", "detectable", "verdict")
    ordered = words.block_order(report)
    rows = BLOCKS_BESIDE_COORDINATES if report.wrong else BLOCKS
    for name, block in ordered[:rows]:
        verdict = Text(block.verdict.value, style=STYLES[block.verdict])
        if block.verdict is Verdict.INCONCLUSIVE:
            verdict = Text("unchecked", style=STYLES[block.verdict])
        table.add_row(
            Text(words.name(name)),  # not a plain str, in which rich would read [...] as markup
            "×".join(map(str, block.shape)) or "scalar",
            f"{block.checked:,}",
            words.number(block.difference, 3),
            words.number(block.uncertainty),
            words.number(block.detectable),
            verdict,
        )
    if len(ordered) > rows:
        table.add_row(f"... {len(ordered) - rows:,} more", "", "", "", "", "", "")
    return table


def _coordinates(report: Report) -> Table:
    table = _table("coordinate", "analytic", "numerical", "uncertainty", "")
    shown = report.wrong[:COORDINATES]
    for coordinate in shown:
        table.add_row(
            Text(words.name(coordinate.name)),
            f"{coordinate.analytic:.8g}",
            words.with_uncertainty(coordinate.numerical, coordinate.uncertainty),
            words.number(coordinate.uncertainty),
            words.ratio(coordinate),
        )
    total = sum(block.wrong for block in report.blocks.values())
    if total > len(shown):
        table.add_row(f"... {total - len(shown):,} more", "", "", "", "")
    return table
