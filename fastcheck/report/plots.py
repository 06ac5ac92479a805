"""The drawings of a block: where its wrong coordinates are, and how they are wrong."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.errors import MissingDependencyError
from fastcheck.report.kernels import Grid, kernels
from fastcheck.report.ladder import FLOOR, power
from fastcheck.report.report import Coordinate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["by_index", "draw_map", "relative_error", "require_matplotlib", "wrong_coordinates"]

CELLS = 96  # per side of a map; a larger block shows the largest error of each cell
POINTS = 1000
FEW = 8  # points that make no line yet: the table beside them says more
NEAR = 0.04  # of the largest value: smaller differences are drawn themselves, since the two values would look equal

# Stand-ins that become the variables of the page's style sheet, so that a plot follows light and dark.
INK, MUTED, MARK, QUIET = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", MARK: "var(--wrong)", QUIET: "var(--panel)"}
HEAT = ("#e3b341", "#ee7b30", "#d7263d", "#a8237f")


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
        draw_map(where, where.subplots(), shape, coordinates, QUIET)
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


def draw_map(figure: Figure, axes: Axes, shape: Sequence[int], coordinates: Sequence[Coordinate], blank: str) -> None:
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
    bar = figure.colorbar(image, ax=axes, shrink=0.9, ticks=[FLOOR, thresholds.SUSPICIOUS, thresholds.WRONG, 1.0])
    bar.ax.set_yticklabels([power(v) for v in (FLOOR, thresholds.SUSPICIOUS, thresholds.WRONG, 1.0)])
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
