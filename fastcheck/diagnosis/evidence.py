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

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.measure.directions import CHUNK, gaussian
from fastcheck.parameters import Block

__all__ = ["BlockEvidence", "Coordinates", "Directions", "Evidence", "View"]


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
    """Rows that are products with Gaussian directions, which are drawn again whenever they are needed.

    By the seed of the run, the number of the block and those of the probes; `size`, of shape (n,), is what each entry
    of a direction is multiplied by.
    """

    seed: int
    number: int
    probes: tuple[int, ...]
    size: FloatArray | None = field(default=None, repr=False)

    def of(self, vector: FloatArray) -> FloatArray:
        """See `View.of`."""
        total = np.zeros(len(self.probes))
        for start in range(0, len(vector), CHUNK):
            part = vector[start : start + CHUNK]
            for k, probe in enumerate(self.probes):
                total[k] += self.drawn(probe, start, start + len(part)) @ part
        return total

    def drawn(self, probe: int, start: int, stop: int) -> FloatArray:
        """Return the entries ``start:stop`` of a direction."""
        entries = gaussian(self.seed, self.number, probe, start, stop)
        return entries if self.size is None else entries * self.size[start:stop]


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

    @classmethod
    def without_rows(cls, block: Block, g: FloatArray, theta: FloatArray) -> BlockEvidence:
        """Return a block that is not wrong, of which no row is needed; `g` and `theta` are of all blocks."""
        nowhere, nothing = Coordinates(np.zeros(0, dtype=np.int64)), np.zeros(0)
        return cls(block, g[block.slice], theta[block.slice], nowhere, nothing, nothing, wrong=False)

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
    """What is known of a wrong gradient: all blocks, in the order of the parameters, and the data.

    `integers` are the blocks whose gradient came as an array of integers.
    """

    blocks: tuple[BlockEvidence, ...]
    facts: DataFacts = field(default_factory=DataFacts)
    integers: frozenset[str] = frozenset()

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
