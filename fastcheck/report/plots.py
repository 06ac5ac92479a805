"""The plots of the page: each block on one log axis, and where and how the wrong coordinates of a block are wrong."""

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
from fastcheck.report.report import BlockReport, Coordinate
from fastcheck.verdict import SUSPICIOUS_ABOVE, WRONG_ABOVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Ladder", "by_index", "relative_error", "wrong_coordinates"]

FloatArray = NDArray[np.float64]

LOWEST, FLOOR = 1e-17, 1e-7
CELLS = 96  # per side of a map; a larger block shows the largest error of each cell
POINTS = 1000
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
    """Return a drawing of a block's wrong coordinates: where they are, and analytic against measured.

    Parameters
    ----------
    shape : sequence of int
        Shape of the block.
    coordinates : sequence of Coordinate
        Those of this block that are wrong, worst first.
    number : int
        Number of the drawing in its page; it keeps the ids of the drawings apart.

    Returns
    -------
    str
        An ``<svg>`` element. It holds no text of the user's.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("the plots of a page need matplotlib: pip install 'fastcheck[html]'") from error
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastcheck", "font.size": 9, "path.simplify": True}):
        figure = Figure(figsize=(7.6, 3.1), layout="constrained")
        where, how = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _map(figure, where, shape, coordinates)
        _scatter(how, coordinates[:POINTS])
        for axes in figure.axes:
            _restyle(axes)
        return _inline(figure, number)


def _map(figure: Figure, axes: Axes, shape: Sequence[int], coordinates: Sequence[Coordinate]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import MaxNLocator

    errors, (rows, columns) = by_index(shape, coordinates)
    axes.set_facecolor(QUIET)
    image = axes.imshow(
        errors,
        norm=LogNorm(FLOOR, 1.0),
        cmap=LinearSegmentedColormap.from_list("heat", HEAT),
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect="auto",
        interpolation="none",
    )
    axes.set_box_aspect(min(max(rows / columns, 0.25), 1.5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    if len(shape) < 2:
        axes.set_yticks([])
    axes.set_xlabel({0: "", 1: "index", 2: "second index"}.get(len(shape), "other indices, taken together"))
    axes.set_ylabel("first index" if len(shape) > 1 else "")
    axes.set_title("relative error by index")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, ticks=[FLOOR, SUSPICIOUS_ABOVE, WRONG_ABOVE, 1.0])
    bar.ax.set_yticklabels([_power(v) for v in (FLOOR, SUSPICIOUS_ABOVE, WRONG_ABOVE, 1.0)])
    bar.ax.minorticks_off()


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


def _inline(figure: Figure, number: int) -> str:
    """Return the figure as one element to stand inside a page: no prologue, ids of its own, the page's colours."""
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
