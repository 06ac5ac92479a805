"""The kernels of a convolution side by side, as a person pictures them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.report.report import Coordinate

__all__ = ["Grid", "kernels"]

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

    Parameters
    ----------
    shape : sequence of int
        ``(outputs, inputs, height, width)``, or ``(height, width, inputs, outputs)`` where those are the equal ones.
    coordinates : sequence of Coordinate
        The wrong ones of this block, worst first.
    error : callable
        The relative error of a coordinate.
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
