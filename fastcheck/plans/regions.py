"""A box of coordinates inside one block, and a direction that moves nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastcheck.directions import gaussian
from fastcheck.losses.evaluator import FloatArray
from fastcheck.parameters import Block

__all__ = ["Region"]


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
    def size(self) -> int:
        """Number of coordinates."""
        return self.height * self.width

    @property
    def span(self) -> tuple[int, int]:
        """First and last plus one place in the block that the region touches."""
        across = shape_of(self.block)[1]
        return self.rows[0] * across + self.columns[0], (self.rows[1] - 1) * across + self.columns[1]

    def halves(self, axis: int) -> tuple[Region, Region]:
        """Split the rows (axis 0) or the columns (axis 1) in the middle."""
        name = "columns" if axis else "rows"
        low, high = getattr(self, name)
        middle = (low + high) // 2
        return replace(self, **{name: (low, middle)}), replace(self, **{name: (middle, high)})

    def direction(self, seed: int, probe: int) -> tuple[int, FloatArray]:
        """Return the first place in theta and the values of a direction that is Gaussian here and zero elsewhere.

        The values are those of the direction of that number over the whole block, so that the parts of a region add
        up to the region.
        """
        low, high = self.span
        drawn = gaussian(seed, self.number, probe, low, high)
        across = shape_of(self.block)[1]
        if self.width != across:
            rows = drawn[: (self.height - 1) * across].reshape(self.height - 1, across)
            rows[:, self.width :] = 0.0
        return self.block.start + low, drawn

    def place(self, row: int, column: int) -> int:
        """Return the place in theta of a row and a column of the block's matrix."""
        return self.block.start + row * shape_of(self.block)[1] + column


def shape_of(block: Block) -> tuple[int, int]:
    """Return the block's shape as a matrix in memory order: its slowest axis, and all the others."""
    if not block.shape:
        return 1, 1
    height = block.shape[0] if block.order == "C" else block.shape[-1]
    return height, block.size // height if height else 0
