"""A convolution under a max pool: only the winner of each cell can move the loss.

The places of one cell are therefore moved together, in one propagation: each sample's winner by +h and -h, the others
not at all, as their exact differences after the pool are zero as long as they stay below the winner. Cells where that
is not sure (a tie, or a gap that the step may close) are marked to be measured place by place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.operators import Bend, Change, FloatArray, Operator
from fastcheck.networks.unweighted import MaxPool

__all__ = ["Winners"]


class Winners:
    """The first differences, after activation and pool, of every cell of a map.

    Attributes
    ----------
    pool : MaxPool
    after : tuple of Operator
        What follows the pool.
    place : (H', W')
        Cells.
    far : bool, shape (C, H', W', B)
        Cells in which a loser may win, or the winner leaves the reach of the formulas.
    """

    def __init__(self, bend: Bend | None, pool: MaxPool, after: tuple[Operator, ...], h: float) -> None:
        self.pool, self.after, self.place, self.size = pool, after, pool.place, pool.size
        self.winner = pool.winner
        gap = pool.gap
        own = np.zeros((2, *self.winner.shape))
        own[0], own[1] = h, -h
        moved, crosses = np.full_like(gap, h), np.zeros(gap.shape, bool)
        if bend is not None:
            c1, c2, rho = (pool.gather(table) for table in bend.tables)
            crosses = rho < h
            # 1 % covers the curvature; past a kink the slope is not known, and twice the larger of it and 1 is allowed.
            moved = h * np.where(crosses, 2 * np.maximum(np.abs(c1), 1.0), 1.01 * np.abs(c1))
            first, second = self._won(c1), self._won(c2)
            own = own * (first + second * own)
        self._moves = own
        self.far = np.asarray((moved > gap).any(axis=0) | self._won(crosses))

    def _won(self, table: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.take_along_axis(table, self.winner[None], axis=0)[0])

    @staticmethod
    def of(after: tuple[Operator, ...], h: float) -> Winners | None:
        """Return the winners if an (activation and a) max pool without overlap or padding comes next, else None."""
        bend = after[0] if after and isinstance(after[0], Bend) else None
        rest = after[1:] if bend else after
        if not (rest and isinstance(rest[0], MaxPool) and rest[0].size == rest[0].stride and not rest[0].padding):
            return None
        return Winners(bend, rest[0], rest[1:], h)

    def start(self, rows: slice, y: int, x: int) -> Change:
        """Return the changes of one cell in each of some channels, as they leave the pool."""
        return Change(np.moveaxis(self._moves[:, rows, y, x], 0, 1), rows, (y, y + 1, x, x + 1))

    def cells(self, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which cells, shape (C, H', W'), hold any of some places (C, H, W)."""
        height, width = (n * self.size for n in self.place)
        shape = (len(where), self.place[0], self.size, self.place[1], self.size)
        return np.asarray(where[:, :height, :width].reshape(shape).any(axis=(2, 4)))

    def share(
        self, rows: slice, y: int, x: int, slopes: FloatArray, far: NDArray[np.bool_]
    ) -> Iterator[tuple[tuple[int, int], FloatArray, NDArray[np.bool_]]]:
        """Share the slopes (m, B) of a cell out: all to its winners. Marks are of every place of the cell."""
        winner, marks = self.winner[rows, y, x], far | self.far[rows, y, x]
        for place in range(self.size**2):
            u, v = divmod(place, self.size)
            yield (y * self.size + u, x * self.size + v), np.where(winner == place, slopes, 0.0), marks
