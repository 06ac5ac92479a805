"""The table of a self-test."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastcheck.report import words

if TYPE_CHECKING:
    from fastcheck.selftest import PlantedBug, SelfTestReport

__all__ = ["as_text", "render"]

NAMED = {True: "yes", False: "no", None: "-"}


def render(report: SelfTestReport) -> RenderableType:
    """Return the self-test for a rich console."""
    found = sum(bug.found for bug in report.bugs)
    told = [bug for bug in report.bugs if bug.named is not None]
    head = (
        f"{'PASSED' if report.passed else 'FAILED'}: {found} of {words.count(len(report.bugs), 'planted bug')} found, "
        f"{sum(bool(bug.named) for bug in told)} of {len(told)} named rightly; "
        f"{words.count(report.evaluations, 'evaluation')} of the loss"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("bug", "in", "size", "found", "named", "first finding", "smallest found"):
        table.add_column(column, justify="right" if column in ("size", "smallest found") else "left", no_wrap=True)
    for bug in report.bugs:
        table.add_row(*map(Text, _row(bug)))  # not a plain str, in which rich would read [...] as markup
    return Group(Text(head, style="bold green" if report.passed else "bold red"), table)


def _row(bug: PlantedBug) -> tuple[str, ...]:
    blocks = ", ".join(map(words.name, bug.blocks[:2])) + (
        f" and {len(bug.blocks) - 2} more" if len(bug.blocks) > 2 else ""
    )
    return (
        bug.kind,
        blocks,
        words.number(bug.size),
        "yes" if bug.found else "NO",
        NAMED[bug.named],
        bug.finding or "-",
        words.number(bug.smallest),
    )


def as_text(report: SelfTestReport, width: int = 120) -> str:
    """Return the self-test as plain text."""
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
