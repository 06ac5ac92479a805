"""The terms of a loss and their sum, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fastcheck.report import words
from fastcheck.report.terminal import STYLES

if TYPE_CHECKING:
    from fastcheck.terms import TermsReport

__all__ = ["render"]


def render(report: TermsReport) -> RenderableType:
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
