"""The table of a self-test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fastcheck.report import words
from fastcheck.report.tables import Column, plain, table, width_here

if TYPE_CHECKING:
    from fastcheck.selftest import PlantedBug, SelfTestReport

__all__ = ["as_text", "render"]

NAMED = {True: "yes", False: "no", None: "-"}


def render(report: SelfTestReport, width: int) -> RenderableType:
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
        Column("in", [_blocks(bug) for bug in bugs], left=True, name=True),
        Column("size", [words.number(bug.size) for bug in bugs], drop=2),
        Column("found", ["yes" if bug.found else "NO" for bug in bugs], left=True),
        Column("named", [NAMED[bug.named] for bug in bugs], left=True, drop=1),
        Column("first finding", [bug.finding or "-" for bug in bugs], left=True, drop=3),
        Column("smallest found", [words.number(bug.smallest) for bug in bugs]),
    ]
    return Group(Text(head, style="bold green" if report.passed else "bold red"), table(columns, width))


def as_text(report: SelfTestReport, width: int | None = None) -> str:
    """Return the self-test as plain text, by default as wide as the terminal."""
    width = width or width_here()
    return plain(render(report, width), width)


def _blocks(bug: PlantedBug) -> str:
    return ", ".join(bug.blocks[:2]) + (f" and {len(bug.blocks) - 2} more" if len(bug.blocks) > 2 else "")
