"""The drawings of a report: its worst blocks on one axis, where the coordinates of a block are wrong, and how."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.errors import MissingDependencyError
from fastcheck.judge.verdict import Verdict
from fastcheck.report import words
from fastcheck.report.axis import FLOOR, GradeAxis, power, tolerance_of
from fastcheck.report.report import BlockReport, Coordinate, Report, Sweep
from fastcheck.report.terminal import GREEN, MAGENTA, RED, YELLOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Moment",
    "by_index",
    "history",
    "kernels",
    "over_the_step",
    "over_training",
    "overview",
    "relative_error",
    "require_matplotlib",
    "wrong_coordinates",
]

CELLS = 96  # per side of a map; a larger block shows the largest error of each cell
POINTS = 1000
FEW = 8  # points that make no line yet: the table beside them says more
HIGH, FAR = 1e3, 1e100  # relative errors and steps beyond which a sweep draws nothing
NEAR = 0.04  # of the largest value: smaller differences are drawn themselves, since the two values would look equal

# Stand-ins that become the variables of the page's style sheet, so that a plot follows light and dark.
INK, MUTED, MARK, QUIET = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", MARK: "var(--wrong)", QUIET: "var(--panel)"}
GRADES = {verdict: f"#0102{number:02x}" for number, verdict in enumerate(Verdict, 16)}
VARIABLES |= {stand_in: f"var(--{verdict.value})" for verdict, stand_in in GRADES.items()}
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "fastcheck", "font.size": 9, "path.simplify": True}
HEAT = ("#e3b341", "#ee7b30", "#d7263d", "#a8237f")


def relative_error(coordinate: Coordinate) -> float:
    """Return the ratio |g - n| / (|g| + |n|) of a coordinate: 0 if both are zero, 1 if one is not finite."""
    scale = abs(coordinate.analytic) + abs(coordinate.numerical)
    if not math.isfinite(scale):
        return 1.0
    return abs(coordinate.analytic - coordinate.numerical) / scale if scale else 0.0


def by_index(shape: Sequence[int], coordinates: Sequence[Coordinate]) -> tuple[FloatArray, tuple[int, int]]:
    """Return the largest relative error of each cell of a block seen as a matrix, and the matrix's rows and columns.

    A vector is one row; the axes from the second on are taken together in C order. There are at most `CELLS` rows and
    columns of cells; NaN stands where no wrong coordinate is listed.
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

    One ``<svg>`` element or two, without any text of the user's. The coordinates are worst first; `number` keeps the
    ids of the drawings of a page apart.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        where = Figure(figsize=(4.4, 3.1), layout="constrained")
        _draw_map(where, where.subplots(), shape, coordinates, QUIET)
        drawings = [where]
        if len(coordinates) > FEW:
            how = Figure(figsize=(3.6, 3.1), layout="constrained")
            _scatter(how.subplots(), coordinates[:POINTS])
            drawings.append(how)
        return "".join(_inline(drawn, f"{number}{letter}") for drawn, letter in zip(drawings, "ab", strict=False))


def over_the_step(sweep: Sweep, worst: Coordinate) -> str:
    """Return a drawing of the worst coordinate's relative error at each step, and of what rounding can make of it.

    It is empty where there are less than two steps to draw.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    steps, errors, rounding = _relative(sweep, abs(worst.analytic) + abs(worst.numerical), worst.analytic)
    if len(steps) < 2:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        _sweep(figure.subplots(), steps, errors, rounding, relative_error(worst))
        return _inline(figure, "0")


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


def _draw_map(figure: Figure, axes: Axes, shape: Sequence[int], coordinates: Sequence[Coordinate], blank: str) -> None:
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


def _relative(sweep: Sweep, scale: float, analytic: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return steps, relative errors and relative rounding where they can be drawn; a file may hold any numbers."""
    steps, derivatives, rounding = np.array([sweep.steps, sweep.derivatives, sweep.rounding])
    with np.errstate(all="ignore"):
        errors, rounding = np.minimum([np.abs(analytic - derivatives) / scale, np.abs(rounding) / scale], HIGH)
    fine = np.isfinite(errors) & np.isfinite(rounding) & (steps > 1 / FAR) & (steps < FAR)
    return steps[fine], errors[fine], rounding[fine]


def _sweep(axes: Axes, steps: FloatArray, errors: FloatArray, rounding: FloatArray, own: float) -> None:
    """Draw the error over the step: on the plateau it is the gradient's own, in the grey it may be rounding."""
    low = max(FLOOR, min(own, 1e-1, *rounding)) / 10
    axes.set_facecolor("none")
    axes.fill_between(steps, low, np.maximum(rounding, low), color=MUTED, alpha=0.25, linewidth=0)
    axes.axhline(own, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot(steps, np.maximum(errors, low), "o-", color=MARK, markersize=4, linewidth=1.0)
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="relative error")
    axes.set_ylim(low, 5 * max(own, low, *errors))
    axes.minorticks_off()
    axes.set_title("error over the step (grey: rounding)")


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


# -- kernels of a convolution side by side, as a person pictures them -------------------------------------------------


SIDE = 72  # cells; where all kernels are more, only the worst are drawn
SHOWN, BESIDE = 15, 5  # so many of them, and so many in a row
LABELS = 12
GAP = 1


@dataclass(frozen=True)
class Grid:
    """Kernels in rows and columns with gaps between them.

    Attributes
    ----------
    errors : float64 array
        Relative errors by cell; NaN in the gaps and where no wrong coordinate is listed.
    kernel : tuple of int
        Height and width of one.
    corners : list of tuple of int
        Row and column of the first cell of each kernel.
    rows, columns : list of (int, str)
        Labels, and the cell at which the kernels they belong to begin.
    titles : list of str
        Of each kernel, where rows and columns have no labels.
    down, across : str
        What the labels are.
    """

    errors: FloatArray
    kernel: tuple[int, int]
    corners: list[tuple[int, int]]
    rows: list[tuple[int, str]]
    columns: list[tuple[int, str]]
    titles: list[str]
    down: str
    across: str


def kernels(
    shape: Sequence[int], coordinates: Sequence[Coordinate], error: Callable[[Coordinate], float]
) -> Grid | None:
    """Return the kernels of a 4-d block with their errors; None where they are of a single cell, or not of a 4-d block.

    The shape is ``(outputs, inputs, height, width)``, or ``(height, width, inputs, outputs)`` where those are the equal
    ones; the coordinates are worst first; `error` gives the relative error of one.
    """
    if len(shape) != 4 or not coordinates:
        return None
    first = _spatial_first(shape)
    titles: list[str] = []
    outer, inner = (shape[2:], shape[:2]) if first else (shape[:2], shape[2:])
    if math.prod(inner) == 1 or max(inner) > SIDE:
        return None
    height, width = inner[0] + GAP, inner[1] + GAP
    split = [(c.index[2:], c.index[:2], c) if first else (c.index[:2], c.index[2:], c) for c in coordinates]
    if outer[0] * height - GAP <= SIDE and outer[1] * width - GAP <= SIDE:
        at = {(i, j): (i * height, j * width) for i in range(outer[0]) for j in range(outer[1])}
        rows = _thinned([(i * height, str(i)) for i in range(outer[0])])
        columns = _thinned([(j * width, str(j)) for j in range(outer[1])])
        down, across = ("third index", "last index") if first else ("first index", "second index")
    else:
        worst = list(dict.fromkeys((int(o[0]), int(o[1])) for o, _, _ in split))[:SHOWN]
        at = {k: (GAP + n // BESIDE * (height + GAP), n % BESIDE * width) for n, k in enumerate(worst)}  # below a title
        rows, columns, titles = [], [], [f"{i}, {j}" for i, j in worst]
        down, across = "", f"the worst {len(worst)} of {math.prod(outer):,} kernels"
    corners = list(at.values())
    errors = np.zeros((max(r for r, _ in corners) + inner[0], max(c for _, c in corners) + inner[1]))
    for place, cell, coordinate in split:
        if place in at:
            row, column = at[place]
            errors[row + cell[0], column + cell[1]] = error(coordinate)
    return Grid(
        np.where(errors > 0, errors, np.nan), (inner[0], inner[1]), corners, rows, columns, titles, down, across
    )


def _spatial_first(shape: Sequence[int]) -> bool:
    """Say whether the axes of a kernel are the first two: they are as long as each other, and short."""
    if shape[0] != shape[1]:
        return False
    return shape[2] != shape[3] or shape[0] < shape[2]


def _thinned(labels: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return labels[:: math.ceil(len(labels) / LABELS)]


# -- the figure of a report -------------------------------------------------------------------------------------------


BARS = 24  # blocks that it shows
COLOURS = {
    Verdict.CORRECT: GREEN,
    Verdict.ACCEPTABLE: (122, 154, 31),
    Verdict.INCONCLUSIVE: YELLOW,
    Verdict.SUSPICIOUS: MAGENTA,
    Verdict.WRONG: RED,
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
    _blocks_on_axis(panels[0], rows, tolerance_of(report))
    if worst:
        _draw_map(figure, panels[1], report.blocks[worst].shape, [c for c in report.wrong if c.block == worst], "0.93")
        panels[1].set_title(f"{worst}: relative error by index", parse_math=False)
    return figure


def _blocks_on_axis(axes: Axes, rows: Sequence[tuple[str, BlockReport]], tolerance: float) -> None:
    """Draw each block on a line: its difference a dot, its uncertainty a bar, what was detectable a stroke."""
    axis = GradeAxis.of((block for _, block in rows), tolerance)
    low = axis.low
    for place, (_, block) in enumerate(rows):
        if block.uncertainty > low:
            axes.barh(place, min(block.uncertainty, 1.0) - low, left=low, height=0.5, color="0.82", zorder=1)
        if block.detectable <= 1:
            axes.plot([max(block.detectable, low)], [place], "|", color="0.4", markersize=9, zorder=2)
        if not math.isnan(block.difference):
            colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[block.verdict])
            axes.plot([min(max(block.difference, low), 1.0)], [place], "o", color=colour, zorder=3)
    for limit in axis.limits:
        axes.axvline(limit, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xscale="log", xlim=(low, 1.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    axes.set_title("relative difference (bar: its uncertainty, |: detectable)", fontsize="medium")


# -- the figure of a history ------------------------------------------------------------------------------------------


MARKS = {
    Verdict.CORRECT: "o",
    Verdict.ACCEPTABLE: "^",
    Verdict.INCONCLUSIVE: "s",
    Verdict.SUSPICIOUS: "D",
    Verdict.WRONG: "X",
}
NAMED, LEAST = 12, 1e-17  # blocks that a legend names; a difference of zero is drawn here


class Moment(Protocol):
    """One check during training: the step, the second, the report."""

    @property
    def step(self) -> int:
        """Steps of training before it."""
        ...

    @property
    def at(self) -> float:
        """Seconds since the first step."""
        ...

    @property
    def report(self) -> Report:
        """What the check found."""
        ...


def history(moments: Sequence[Moment], tolerance: float) -> Figure:
    """Return a figure of the difference of every block over the steps of training, each mark in its verdict's colour.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    colours = {verdict: "#{:02x}{:02x}{:02x}".format(*colour) for verdict, colour in COLOURS.items()}
    _over_training(figure.subplots(), moments, tolerance, colours, "0.2", "0.6")
    return figure


def over_training(moments: Sequence[Moment], tolerance: float) -> str:
    """Return the same as one element of a page; see `history`."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        _over_training(figure.subplots(), moments, tolerance, GRADES, INK, MUTED)
        return _inline(figure, "0")


def _over_training(
    axes: Axes, moments: Sequence[Moment], tolerance: float, colours: Mapping[Verdict, str], ink: str, muted: str
) -> None:
    from matplotlib.lines import Line2D

    axes.set_facecolor("none")
    names = list(moments[0].report.blocks) if moments else []
    told: dict[Verdict, Line2D] = {}
    lines = []
    for number, name in enumerate(names):
        points = [(one.step, one.report.blocks[name]) for one in moments if name in one.report.blocks]
        points = [(step, block) for step, block in points if not math.isnan(block.difference)]
        heights = [max(block.difference, LEAST) for _, block in points]
        shade = f"C{number % 10}" if len(names) <= NAMED else muted
        lines += axes.plot([step for step, _ in points], heights, color=shade, label=name, linewidth=1, alpha=0.8)
        for verdict in Verdict:
            at = [k for k, (_, block) in enumerate(points) if block.verdict is verdict]
            if at:
                size, colour = 9 if verdict.refuted else 4, colours[verdict]
                style: dict[str, Any] = {"marker": MARKS[verdict], "color": colour, "markersize": size, "linestyle": ""}
                axes.plot([points[k][0] for k in at], [heights[k] for k in at], zorder=3, **style)
                told[verdict] = Line2D([], [], label=verdict.value, **style)
    axes.axhline(tolerance, color=muted, linewidth=1, linestyle="--")
    axes.text(1, tolerance, "tolerance ", color=muted, ha="right", va="bottom", transform=axes.get_yaxis_transform())
    axes.set(yscale="log", xlabel="step of training", ylabel="relative difference")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [told[verdict] for verdict in MARKS if verdict in told] + (lines if len(names) <= NAMED else [])
    if handles:
        legend = axes.figure.legend(handles=handles, loc="outside right upper", fontsize="small", frameon=False)
        for text in legend.get_texts():
            text.set_color(ink)
            text.set_parse_math(False)
