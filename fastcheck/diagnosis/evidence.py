"""What a diagnosis is made of: for every block the analytic gradient, and rows of measurements of the true one.

A *row* is one measured number that is linear in the block's true gradient: a coordinate of it, or its product with a
direction. Most rules only ask what a hypothesis predicts for the rows, so they work the same on a measured
gradient, on a sample of it, and on a few directional derivatives of a block of any size.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.diagnosis.facts import Facts
from fastcheck.parameters import Block

__all__ = ["BlockEvidence", "Coordinates", "Directions", "Evidence", "View"]

CHUNK = 1 << 20  # coordinates of a direction that are made floats at a time


class View(Protocol):
    """How rows come from a block's gradient."""

    def of(self, vector: FloatArray) -> FloatArray:
        """Return the rows, shape (m,), of a vector over the block, shape (n,)."""
        ...


@dataclass(frozen=True)
class Coordinates:
    """Rows that are coordinates of the block.

    Attributes
    ----------
    rows : int64, shape (m,), or None
        Offsets into the block, rising; None for all of it.
    """

    rows: IntArray | None = None

    def of(self, vector: FloatArray) -> FloatArray:
        """See `View.of`."""
        return vector if self.rows is None else vector[self.rows]


@dataclass(frozen=True)
class Directions:
    """Rows that are products with directions of entries -1 and 1.

    Attributes
    ----------
    signs : int8, shape (m, n)
        The directions; a byte an entry, so that eight of them weigh what theta does.
    """

    signs: NDArray[np.int8]

    def of(self, vector: FloatArray) -> FloatArray:
        """See `View.of`."""
        total = np.zeros(len(self.signs))
        for start in range(0, len(vector), CHUNK):
            part = slice(start, start + CHUNK)
            total += self.signs[:, part].astype(np.float64) @ vector[part]
        return total


@dataclass(frozen=True)
class BlockEvidence:
    """One block's analytic gradient beside what was measured of the true one.

    Attributes
    ----------
    block : Block
        The block.
    g, theta : float64, shape (n,)
        The analytic gradient and the parameters, in theta's own order.
    view : View
        What the rows are.
    n, tolerance : float64, shape (m,)
        The measured rows, and the largest error that measurement and rounding leave possible in each.
    wrong : bool
        Whether the comparison found the block suspicious or wrong.
    checked : bool
        Whether it could tell.
    """

    block: Block
    g: FloatArray = field(repr=False)
    theta: FloatArray = field(repr=False)
    view: View
    n: FloatArray = field(repr=False)
    tolerance: FloatArray = field(repr=False)
    wrong: bool = True
    checked: bool = True

    @property
    def name(self) -> str:
        """Name of the block."""
        return self.block.name

    @cached_property
    def claimed(self) -> FloatArray:
        """The rows of the analytic gradient, shape (m,)."""
        return self.view.of(self.g)

    @cached_property
    def error(self) -> FloatArray:
        """The rows' errors, analytic minus measured, shape (m,)."""
        return self.claimed - self.n

    @property
    def rows(self) -> IntArray | None:
        """The rows' offsets into the block, shape (m,); None where the rows are directions."""
        if not isinstance(self.view, Coordinates):
            return None
        return np.arange(self.block.size, dtype=np.int64) if self.view.rows is None else self.view.rows

    @property
    def whole(self) -> bool:
        """Whether every coordinate of the block is a row."""
        return isinstance(self.view, Coordinates) and self.view.rows is None

    def some(self, count: int) -> BlockEvidence:
        """Return the evidence of so many of the rows, evenly spread; the rows must be coordinates."""
        places = self.rows
        assert places is not None
        kept = np.linspace(0, len(places) - 1, count).astype(np.int64)
        return dataclasses.replace(self, view=Coordinates(places[kept]), n=self.n[kept], tolerance=self.tolerance[kept])

    def array(self, vector: FloatArray) -> FloatArray:
        """Return a vector over the block in the block's shape, as a view."""
        return vector.reshape(self.block.shape, order=self.block.order)  # type: ignore[call-overload,no-any-return]

    def vector(self, array: FloatArray) -> FloatArray:
        """Return an array of the block's shape as a vector in theta's order (inverse of `array`)."""
        return array.ravel(order=self.block.order)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Evidence:
    """All blocks, in the order of the parameters, and what is known about the data."""

    blocks: tuple[BlockEvidence, ...]
    facts: Facts = field(default_factory=Facts)

    @property
    def wrong(self) -> tuple[BlockEvidence, ...]:
        """The blocks found wrong."""
        return tuple(block for block in self.blocks if block.wrong)

    @property
    def right(self) -> tuple[BlockEvidence, ...]:
        """The blocks found right."""
        return tuple(block for block in self.blocks if block.checked and not block.wrong)

    def __getitem__(self, name: str) -> BlockEvidence:
        for block in self.blocks:
            if block.name == name:
                return block
        raise KeyError(name)
