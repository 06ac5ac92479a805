"""Two reports of one gradient, before and after a change of its code: which blocks it fixed, and which it broke."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fastcheck.report import words
from fastcheck.report.report import BlockReport, Report
from fastcheck.report.terminal import STYLES, Column, graded, table

__all__ = ["Change", "changes", "render", "summary", "unlike"]

ROWS = 20
ORDER = ("broken", "still wrong", "new", "gone", "now unchecked", "fixed", "now checked", "as before")
COLOURS = {"broken": "bold red", "still wrong": "red", "fixed": "bold green", "now checked": "green"}
OF_THE_RUN = ("date", "versions", "noise", "steps", "directions", "size", "listed", "command", "where", "progress")


@dataclass(frozen=True)
class Change:
    """One block in both reports; None where a report does not have it."""

    name: str
    before: BlockReport | None
    after: BlockReport | None

    @property
    def word(self) -> str:
        """What became of it, one of `ORDER`."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        was, now = self.before.verdict, self.after.verdict
        if now.refuted:
            return "still wrong" if was.refuted else "broken"
        if not now.passed:
            return "now unchecked" if was.passed or was.refuted else "as before"
        return "fixed" if was.refuted else "as before" if was.passed else "now checked"


def changes(before: Report, after: Report) -> list[Change]:
    """Return the blocks of both reports, those that need somebody first."""
    names = dict.fromkeys([*after.blocks, *before.blocks])
    all_of_them = [Change(name, before.blocks.get(name), after.blocks.get(name)) for name in names]
    return sorted(all_of_them, key=lambda one: ORDER.index(one.word))


def summary(before: Report, after: Report) -> str:
    """Return the first line: both verdicts, and how many blocks changed."""
    counted = Counter(one.word for one in changes(before, after))
    told = ", ".join(f"{counted[word]:,} {word}" for word in ORDER if counted[word])
    verdicts = f"{before.verdict.value.upper()} → {after.verdict.value.upper()}"
    return f"{verdicts}: {words.count(sum(counted.values()), 'block')}, {told}"


def unlike(before: Report, after: Report) -> list[tuple[str, Any, Any]]:
    """Return the settings in which the runs differ, as name, before, after: then not only the gradient changed."""
    names = [name for name in dict.fromkeys([*before.settings, *after.settings]) if name not in OF_THE_RUN]
    pairs = [(name, before.settings.get(name), after.settings.get(name)) for name in names]
    return [(name, was, now) for name, was, now in pairs if was != now]


def render(before: Report, after: Report, width: int) -> RenderableType:
    """Return the comparison for a rich console of so many characters."""
    rows = changes(before, after)
    shown, head = rows[:ROWS], summary(before, after)
    more = [f"... {len(rows) - len(shown):,} more"] if len(rows) > len(shown) else []
    blank = [""] * len(more)
    columns = [
        Column("block", [one.name for one in shown] + more, left=True, name=True),
        Column("difference before", [_difference(one.before) for one in shown] + blank, drop=1),
        Column("after", [_difference(one.after) for one in shown] + blank),
        Column("verdict before", [*(_verdict(one.before) for one in shown), *blank], left=True, drop=2),
        Column("after", [*(_verdict(one.after) for one in shown), *blank], left=True),
        Column("", [*(Text(one.word, COLOURS.get(one.word, "dim")) for one in shown), *blank], left=True),
    ]
    verdicts, _, rest = head.partition(":")
    told = [Text(f"{when}: {words.headline(report)}") for when, report in (("before", before), ("after", after))]
    other = [Text(f"not alike: {name}={was!r} → {now!r}", style="dim") for name, was, now in unlike(before, after)]
    return Group(Text.assemble((verdicts, STYLES[after.verdict]), f":{rest}"), table(columns, width), *told, *other)


def _difference(block: BlockReport | None) -> str:
    return words.number(math.nan if block is None else block.difference, 3)


def _verdict(block: BlockReport | None) -> Text:
    return Text("-") if block is None else graded(block.verdict)
