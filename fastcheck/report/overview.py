"""The figure of a report: its worst blocks on one axis, and where the worst of them is wrong."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastcheck.judge.verdict import Verdict
from fastcheck.report import words
from fastcheck.report.ladder import Ladder, tolerance_of
from fastcheck.report.plots import draw_map, require_matplotlib
from fastcheck.report.report import BlockReport, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["overview"]

BARS = 24  # blocks that it shows
COLOURS = {
    Verdict.CORRECT: "#2a9258",
    Verdict.ACCEPTABLE: "#7a9a1f",
    Verdict.INCONCLUSIVE: "#b27810",
    Verdict.SUSPICIOUS: "#a654be",
    Verdict.WRONG: "#d6404a",
}


def overview(report: Report) -> Figure:
    """Return a figure of the worst blocks on one axis and, where coordinates are wrong, of those in the worst block.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook shows, though nobody may have loaded pyplot."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=100)
            return file.getvalue()

    rows = words.block_order(report)[:BARS]
    worst = report.wrong[0].block if report.wrong else None
    figure = Shown(figsize=(10 if worst else 6, max(2.4, 1.2 + 0.24 * len(rows))), layout="constrained")
    panels = figure.subplots(1, 2 if worst else 1, squeeze=False)[0]
    _ladder(panels[0], rows, tolerance_of(report))
    if worst:
        draw_map(figure, panels[1], report.blocks[worst].shape, [c for c in report.wrong if c.block == worst], "0.93")
        panels[1].set_title(f"{worst}: relative error by index", parse_math=False)
    return figure


def _ladder(axes: Axes, rows: Sequence[tuple[str, BlockReport]], tolerance: float) -> None:
    """Draw each block on a line: its difference a dot, its uncertainty a bar, what was detectable a stroke."""
    ladder = Ladder.of((block for _, block in rows), tolerance)
    low = ladder.low
    for place, (_, block) in enumerate(rows):
        if block.uncertainty > low:
            axes.barh(place, min(block.uncertainty, 1.0) - low, left=low, height=0.5, color="0.82", zorder=1)
        if block.detectable <= 1:
            axes.plot([max(block.detectable, low)], [place], "|", color="0.4", markersize=9, zorder=2)
        if not math.isnan(block.difference):
            axes.plot([min(max(block.difference, low), 1.0)], [place], "o", color=COLOURS[block.verdict], zorder=3)
    for limit in ladder.limits:
        axes.axvline(limit, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xscale="log", xlim=(low, 1.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    axes.set_title("relative difference (bar: its uncertainty, |: detectable)", fontsize="medium")
