"""The plots: each block on one log axis, and where and how the wrong coordinates of a block are wrong."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import MissingDependencyError
from fastcheck.report import words
from fastcheck.report.kernels import Grid, kernels
from fastcheck.report.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings
from fastcheck.verdict import SUSPICIOUS_ABOVE, WRONG_ABOVE, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Ladder",
    "by_index",
    "overview",
    "relative_error",
    "require_matplotlib",
    "tolerance_of",
    "wrong_coordinates",
]

FloatArray = NDArray[np.float64]

LOWEST, FLOOR = 1e-17, 1e-7
CELLS = 96  # per side of a map; a larger block shows the largest error of each cell
POINTS = 1000
FEW = 8  # points that make no line yet: the table beside them says more
BARS = 24  # blocks of an overview
COLOURS = {
    Verdict.CORRECT: "#2a9258",
    Verdict.ACCEPTABLE: "#7a9a1f",
    Verdict.INCONCLUSIVE: "#b27810",
    Verdict.SUSPICIOUS: "#a654be",
    Verdict.WRONG: "#d6404a",
}
NEAR = 0.04  # of the largest value: smaller differences are drawn themselves, since the two values would look equal

# Stand-ins that become the variables of the page's style sheet, so that a plot follows light and dark.
INK, MUTED, MARK, QUIET = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", MARK: "var(--wrong)", QUIET: "var(--panel)"}
HEAT = ("#e3b341", "#ee7b30", "#d7263d", "#a8237f")


@dataclass(frozen=True)
class Ladder:
    """A log axis from `low` to 1 with the grades of the textbook, `width` units long.

    Attributes
    ----------
    low : float
        The left end; what is smaller stands there.
    tolerance : float
        Relative error that still counts as correct.
    width : float
        Length of the axis in the units of the drawing.
    """

    low: float
    tolerance: float
    width: float = 220.0

    @classmethod
    def of(cls, blocks: Iterable[BlockReport], tolerance: float) -> Ladder:
        """Return the axis that holds all that is known of the blocks."""
        seen = [v for b in blocks for v in (b.difference, b.uncertainty) if v > 0 and math.isfinite(v)]
        smallest = max(LOWEST, min([*seen, tolerance / 10, FLOOR]))
        return cls(10.0 ** math.floor(math.log10(smallest)), tolerance)

    def at(self, value: float) -> float | None:
        """Return the place of a value, at an end of the axis if it lies beyond; None where it is unknown."""
        if math.isnan(value):
            return None
        share = math.log10(min(max(value, self.low), 1.0) / self.low) / -math.log10(self.low)
        return round(self.width * share, 2)

    @property
    def limits(self) -> tuple[float, ...]:
        """The limits between the grades: correct, acceptable with kinks, suspicious, wrong."""
        return tuple(sorted({self.tolerance, SUSPICIOUS_ABOVE, WRONG_ABOVE}))

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Places and texts of the labels, none too near another."""
        placed: list[tuple[float, str]] = []
        for value in (1.0, self.tolerance, SUSPICIOUS_ABOVE, WRONG_ABOVE, self.low):
            place = self.at(value)
            if place is not None and all(abs(place - other) > 30 for other, _ in placed):
                placed.append((place, _power(value)))
        return placed


def relative_error(coordinate: Coordinate) -> float:
    """Return the ratio |g - n| / (|g| + |n|) of a coordinate: 0 if both are zero, 1 if one is not finite."""
    scale = abs(coordinate.analytic) + abs(coordinate.numerical)
    if not math.isfinite(scale):
        return 1.0
    return abs(coordinate.analytic - coordinate.numerical) / scale if scale else 0.0


def by_index(shape: Sequence[int], coordinates: Sequence[Coordinate]) -> tuple[FloatArray, tuple[int, int]]:
    """Return the relative errors of a block's wrong coordinates by index, seen as a matrix.

    Parameters
    ----------
    shape : sequence of int
        Shape of the block; a vector is one row, the axes from the second on are taken together in C order.
    coordinates : sequence of Coordinate
        Those of this block that are wrong.

    Returns
    -------
    errors : float64 array of at most `CELLS` rows and columns
        The largest error in each cell; NaN where no wrong coordinate is listed.
    size : tuple of int
        Rows and columns of the matrix itself.
    """
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    tall, wide = math.ceil(rows / CELLS), math.ceil(columns / CELLS)
    errors = np.zeros((math.ceil(rows / tall), math.ceil(columns / wide)))
    for coordinate in coordinates:
        row, column = divmod(int(np.ravel_multi_index(coordinate.index, tuple(shape))), columns)
        cell = row // tall, column // wide
        errors[cell] = max(errors[cell], relative_error(coordinate))
    return np.where(errors > 0, errors, np.nan), (rows, columns)


def wrong_coordinates(shape: Sequence[int], coordinates: Sequence[Coordinate], number: int) -> str:
    """Return drawings of a block's wrong coordinates: where they are and, of many, analytic against measured.

    Parameters
    ----------
    shape : sequence of int
        Shape of the block.
    coordinates : sequence of Coordinate
        Those of this block that are wrong, worst first.
    number : int
        Number of the drawings in their page; it keeps the ids of the drawings apart.

    Returns
    -------
    str
        One ``<svg>`` element or two. They hold no text of the user's.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastcheck", "font.size": 9, "path.simplify": True}):
        where = Figure(figsize=(4.4, 3.1), layout="constrained")
        _map(where, where.subplots(), shape, coordinates, QUIET)
        drawings = [where]
        if len(coordinates) > FEW:
            how = Figure(figsize=(3.6, 3.1), layout="constrained")
            _scatter(how.subplots(), coordinates[:POINTS])
            drawings.append(how)
        return "".join(_inline(drawn, f"{number}{letter}") for drawn, letter in zip(drawings, "ab", strict=False))


def require_matplotlib() -> None:
    """Raise unless there is matplotlib.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'fastcheck[html]'") from error


def tolerance_of(report: Report) -> float:
    """Return the tolerance of the run, or the usual one where a report does not say."""
    value = report.settings.get("tolerance")
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else Settings().tolerance


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
        _map(figure, panels[1], report.blocks[worst].shape, [c for c in report.wrong if c.block == worst], "0.93")
        panels[1].set_title(f"{worst}: relative error by index", parse_math=False)
    return figure


def _ladder(axes: Axes, rows: Sequence[tuple[str, BlockReport]], tolerance: float) -> None:
    """Draw each block on a line: its difference a dot, its uncertainty a bar, what was detectable a stroke."""
    low = Ladder.of((block for _, block in rows), tolerance).low
    for place, (_, block) in enumerate(rows):
        if block.uncertainty > low:
            axes.barh(place, min(block.uncertainty, 1.0) - low, left=low, height=0.5, color="0.82", zorder=1)
        if block.detectable <= 1:
            axes.plot([max(block.detectable, low)], [place], "|", color="0.4", markersize=9, zorder=2)
        if not math.isnan(block.difference):
            axes.plot([min(max(block.difference, low), 1.0)], [place], "o", color=COLOURS[block.verdict], zorder=3)
    for limit in (tolerance, SUSPICIOUS_ABOVE, WRONG_ABOVE):
        axes.axvline(limit, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xscale="log", xlim=(low, 1.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    axes.set_title("relative difference (bar: its uncertainty, |: detectable)", fontsize="medium")


def _map(figure: Figure, axes: Axes, shape: Sequence[int], coordinates: Sequence[Coordinate], blank: str) -> None:
    """Draw the relative errors of a block where they are: a matrix, or kernels side by side."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import MaxNLocator

    grid = kernels(shape, coordinates, relative_error)
    errors, (rows, columns) = (grid.errors, grid.errors.shape) if grid else by_index(shape, coordinates)
    axes.set_facecolor("none" if grid else blank)
    image = axes.imshow(
        errors,
        norm=LogNorm(FLOOR, 1.0),
        cmap=LinearSegmentedColormap.from_list("heat", HEAT),
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect="auto",
        interpolation="none",
    )
    axes.set_box_aspect(min(max(rows / columns, 0.25), 2.5 if grid else 1.5))
    axes.set_title("relative error by index")
    if grid:
        _frame_kernels(axes, grid, blank)
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if len(shape) < 2:
            axes.set_yticks([])
        axes.set_xlabel({0: "", 1: "index", 2: "second index"}.get(len(shape), "other indices, taken together"))
        axes.set_ylabel("first index" if len(shape) > 1 else "")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, ticks=[FLOOR, SUSPICIOUS_ABOVE, WRONG_ABOVE, 1.0])
    bar.ax.set_yticklabels([_power(v) for v in (FLOOR, SUSPICIOUS_ABOVE, WRONG_ABOVE, 1.0)])
    bar.ax.minorticks_off()


def _frame_kernels(axes: Axes, grid: Grid, blank: str) -> None:
    """Draw the ground and the frame of each kernel, and say which it is."""
    from matplotlib.patches import Rectangle

    height, width = grid.kernel
    axes.spines[:].set_visible(False)
    for top, left in grid.corners:
        ground = Rectangle((left - 0.5, top - 0.5), width, height, facecolor=blank, edgecolor=MUTED, linewidth=0.5)
        ground.set_zorder(-1)
        axes.add_patch(ground)
    for (top, left), title in zip(grid.corners, grid.titles, strict=False):
        axes.text(left + (width - 1) / 2, top - 0.6, title, fontsize=7, color=INK, ha="center", va="bottom")
    axes.set_xticks([place + (width - 1) / 2 for place, _ in grid.columns], [text for _, text in grid.columns])
    axes.set_yticks([place + (height - 1) / 2 for place, _ in grid.rows], [text for _, text in grid.rows])
    axes.set_xlabel(grid.across)
    axes.set_ylabel(grid.down)


def _scatter(axes: Axes, coordinates: Sequence[Coordinate]) -> None:
    """Draw analytic against measured, or their difference if small: a factor is a line, a lost term a cloud."""
    rows = np.array([(c.numerical, c.analytic, c.uncertainty) for c in coordinates])
    measured, analytic, spread = rows[np.isfinite(rows).all(axis=1)].T
    largest = max(np.abs(analytic).max(initial=0.0), np.abs(measured).max(initial=0.0))
    near = bool(np.abs(analytic - measured).max(initial=0.0) < NEAR * largest)
    shown = analytic - measured if near else analytic
    axes.set_facecolor("none")
    if len(measured):
        ends = np.array([measured.min(), measured.max()])
        axes.plot(ends, 0 * ends if near else ends, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        if spread.max() > 0.01 * np.ptp(shown):  # else it hides behind the point
            error = {"yerr": spread} if near else {"xerr": spread}
            axes.errorbar(measured, shown, **error, fmt="none", ecolor=MUTED, linewidth=0.8, zorder=2)
    axes.plot(measured, shown, "o", color=MARK, markersize=4, markeredgewidth=0, alpha=0.75, zorder=3)
    axes.set_xlabel("measured")
    axes.set_ylabel("analytic − measured" if near else "analytic")
    axes.set_title("difference (dashed: none)" if near else "analytic against measured (dashed: equal)")
    axes.locator_params(nbins=5)
    axes.ticklabel_format(style="sci", scilimits=(-3, 4), useMathText=False)


def _restyle(axes: Axes) -> None:
    axes.title.set_fontsize(9)
    axes.tick_params(colors=MUTED, labelcolor=INK, length=3)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label, axes.xaxis.offsetText, axes.yaxis.offsetText):
        text.set_color(INK)
    for spine in axes.spines.values():
        spine.set_color(MUTED)


def _inline(figure: Figure, number: str) -> str:
    """Return the figure as one element to stand inside a page: no prologue, ids of its own, the page's colours."""
    for axes in figure.axes:
        _restyle(axes)
    file = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=False, facecolor="none", metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r'\bid="', f'id="plot{number}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#plot{number}-", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _power(value: float) -> str:
    """Return ``"1e-7"``, ``"2.5e-4"``, ``"1"``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if int(exponent) else mantissa.removesuffix(".0")
