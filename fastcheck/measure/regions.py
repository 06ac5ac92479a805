"""A box of coordinates inside one block, and a direction that moves nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.measure.directions import gaussian
from fastcheck.parameters import Block

__all__ = ["Region", "joined"]


@dataclass(frozen=True)
class Region:
    """Rows and columns of a block, the block seen as a matrix in its own memory order.

    Attributes
    ----------
    number : int
        Number of the block in the layout.
    block : Block
        The block.
    rows, columns : tuple of int
        First and last plus one, of the matrix of `shape_of` the block.
    """

    number: int
    block: Block
    rows: tuple[int, int]
    columns: tuple[int, int]

    @classmethod
    def whole(cls, number: int, block: Block) -> Region:
        """Return all of a block."""
        height, width = shape_of(block)
        return cls(number, block, (0, height), (0, width))

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows[1] - self.rows[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns[1] - self.columns[0]

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.height * self.width

    @property
    def span(self) -> tuple[int, int]:
        """First and last plus one place in the block that the region touches."""
        across = shape_of(self.block)[1]
        return self.rows[0] * across + self.columns[0], (self.rows[1] - 1) * across + self.columns[1]

    @property
    def box(self) -> list[tuple[int, int]]:
        """First and last plus one along each of the user's axes; of the inner axes of more than two, all."""
        shape, slow = self.block.shape, 0 if self.block.order == "C" else len(self.block.shape) - 1
        box = [(0, length) for length in shape]
        if shape:
            box[slow] = self.rows
        if len(shape) == 2:
            box[1 - slow] = self.columns
        return box

    def halves(self, axis: int) -> tuple[Region, Region]:
        """Split the rows (axis 0) or the columns (axis 1) in the middle."""
        low, high = self.columns if axis else self.rows
        middle = (low + high) // 2
        return self.part(axis, low, middle), self.part(axis, middle, high)

    def part(self, axis: int, low: int, high: int) -> Region:
        """Return the region with other rows (axis 0) or columns (axis 1), counted in the block."""
        return replace(self, columns=(low, high)) if axis else replace(self, rows=(low, high))

    def holds(self, place: int) -> bool:
        """Say whether a place in theta lies in the region."""
        row, column = divmod(place - self.block.start, shape_of(self.block)[1])
        return self.rows[0] <= row < self.rows[1] and self.columns[0] <= column < self.columns[1]

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the contiguous ranges of theta that make up the region."""
        if self.width == shape_of(self.block)[1]:
            low, high = self.span
            yield self.block.start + low, self.block.start + high
            return
        for row in range(*self.rows):
            start = self.place(row, self.columns[0])
            yield start, start + self.width

    def nth(self, k: int) -> int:
        """Return the place in theta of the region's k-th coordinate."""
        row, column = divmod(k, self.width)
        return self.place(self.rows[0] + row, self.columns[0] + column)

    def inside(self) -> NDArray[np.bool_] | None:
        """Return which places of the span belong to the region, shape (n,); None for all of them."""
        across = shape_of(self.block)[1]
        if self.width == across or self.height == 1:
            return None
        low, high = self.span
        return np.arange(high - low) % across < self.width

    def write(self, seed: int, probe: int, out: FloatArray) -> None:
        """Write a direction that is Gaussian here and zero elsewhere, over the region's span.

        The values are those of the direction of that number over the whole block, so that the parts of a region add
        up to the region.
        """
        low, high = self.span
        gaussian(seed, self.number, probe, low, high, out)
        across = shape_of(self.block)[1]
        if self.width != across:
            between = out[: (self.height - 1) * across].reshape(self.height - 1, across)
            between[:, self.width :] = 0.0

    def place(self, row: int, column: int) -> int:
        """Return the place in theta of a row and a column of the block's matrix."""
        return self.block.start + row * shape_of(self.block)[1] + column


def shape_of(block: Block) -> tuple[int, int]:
    """Return the block's shape as a matrix in memory order: its slowest axis, and all the others."""
    if not block.shape:
        return 1, 1
    height = block.shape[0] if block.order == "C" else block.shape[-1]
    return height, block.size // height if height else 0


def joined(regions: Sequence[Region]) -> list[Region]:
    """Join regions of equal columns whose rows touch, then those of equal rows whose columns touch."""
    left = list(regions)
    for axis in (0, 1):
        found: list[Region] = []
        for region in sorted(left, key=lambda region: region.sides[::-1] if axis == 0 else region.sides):
            last = found[-1] if found else None
            touches = last and last.sides[1 - axis] == region.sides[1 - axis]
            if last and touches and last.sides[axis][1] == region.sides[axis][0]:
                found[-1] = last.part(axis, last.sides[axis][0], region.sides[axis][1])
            else:
                found.append(region)
        left = found
    return left
