"""The report on a terminal: at most about 25 lines, whatever the size of the net."""

from __future__ import annotations

import io
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
BLOCKS = 8
COORDINATES = 6
FINDINGS = 4


def render(report: Report) -> RenderableType:
    """Return the report for a rich console."""
    return Group(*_parts(report))


def as_text(report: Report, width: int = 110) -> str:
    """Return the report as plain text."""
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _parts(report: Report) -> Iterator[RenderableType]:
    word, _, rest = words.headline(report).partition(":")
    yield Text.assemble((word, STYLES[report.verdict]), f":{rest}")
    yield _blocks(report)
    if report.wrong:
        yield _coordinates(report)
    shown = [f for f in report.findings if f.message not in words.headline(report)][:FINDINGS]
    for finding in shown:
        yield Text(f"- {finding.message}")
    hidden = len(report.findings) - FINDINGS
    if hidden > 0 and len(shown) == FINDINGS:
        yield Text(f"  ({words.count(hidden, 'more finding')} in report.findings)")
    if not report.passed:
        yield Text(report.verdict.remedy, style="italic")
        yield Text(
            f"{words.count(report.evaluations, 'evaluation')} of the loss, {words.seconds(report.seconds)}, "
            f"{100 * report.coverage:.3g}% of the coordinates measured one by one, seed {report.settings.get('seed')}",
            style="dim",
        )


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
    for name, block in ordered[:BLOCKS]:
        verdict = Text(block.verdict.value, style=STYLES[block.verdict])
        if block.verdict is Verdict.INCONCLUSIVE:
            verdict = Text("unchecked", style=STYLES[block.verdict])
        table.add_row(
            name,
            "×".join(map(str, block.shape)) or "scalar",
            f"{block.checked:,}",
            words.number(block.difference, 3),
            words.number(block.uncertainty),
            words.number(block.detectable),
            verdict,
        )
    if len(ordered) > BLOCKS:
        table.add_row(f"... {len(ordered) - BLOCKS} more", "", "", "", "", "", "")
    return table


def _coordinates(report: Report) -> Table:
    table = _table("coordinate", "analytic", "numerical", "uncertainty", "")
    for coordinate in report.wrong[:COORDINATES]:
        table.add_row(
            coordinate.name,
            f"{coordinate.analytic:.8g}",
            words.with_uncertainty(coordinate.numerical, coordinate.uncertainty),
            words.number(coordinate.uncertainty),
            words.ratio(coordinate),
        )
    total = sum(block.wrong for block in report.blocks.values())
    if total > COORDINATES:
        table.add_row(f"... {total - COORDINATES:,} more", "", "", "", "")
    return table
