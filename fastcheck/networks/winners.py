"""A convolution under a max pool: only the winner of each cell can move the loss.

The places of one cell are therefore moved together, in one propagation: each sample's winner by +h and -h, the others
not at all, as their exact differences after the pool are zero as long as they stay below the winner. Cells where that
is not sure (a tie, or a gap that the step may close) are marked to be measured place by place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.changes import Change
from fastcheck.networks.operators import Bend, FloatArray, Operator
from fastcheck.networks.pools import Cells, MaxPool

__all__ = ["Winners"]


@dataclass(frozen=True)
class Winners:
    """The cells of a max pool without overlap or padding, seen from the places below its activation.

    Attributes
    ----------
    pool : MaxPool
    after : tuple of Operator
        What follows the pool.
    merged : Cells
    """

    pool: MaxPool
    after: tuple[Operator, ...]
    merged: Cells

    @staticmethod
    def of(after: tuple[Operator, ...]) -> Winners | None:
        """Return the winners if an (activation and a) max pool without overlap or padding comes next, else None."""
        bend = after[0] if after and isinstance(after[0], Bend) else None
        rest = after[1:] if bend else after
        if not (rest and isinstance(rest[0], MaxPool) and rest[0].size == rest[0].stride and not rest[0].padding):
            return None
        return Winners(rest[0], rest[1:], rest[0].cells(bend))

    def start(self, rows: slice, y: int, x: int, steps: FloatArray) -> Change:
        """Return the changes of one cell in each of some channels, as they leave the pool; ``steps``: (m, S, B)."""
        at = (slice(None), slice(None), rows, y, x)
        d = self.merged.slope[at].sum(axis=(0, 1))[:, None] * steps
        if self.merged.curve.size:
            d += self.merged.curve[at].sum(axis=(0, 1))[:, None] * steps**2
        return Change(d, rows, (y, y + 1, x, x + 1))

    def cells(self, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which cells, shape (C, H', W'), hold any of some places (C, H, W)."""
        (height, width), size = self.pool.place, self.pool.size
        shape = (len(where), height, size, width, size)
        return np.asarray(where[:, : height * size, : width * size].reshape(shape).any(axis=(2, 4)))

    def share(
        self, rows: slice, y: int, x: int, slopes: FloatArray, far: NDArray[np.bool_], h: float
    ) -> tuple[tuple[slice, slice, slice], FloatArray, NDArray[np.bool_]]:
        """Share the slopes (m, B) of a cell out to its places, all to the winners; marks are of every place.

        Returns
        -------
        index : of the cell's places
        slopes, far : shape (m, k, k, B)
        """
        size = self.pool.size
        won = self.pool.shares[0][:, :, rows, y, x].transpose(2, 0, 1, 3) > 0
        far = far | (h > self.merged.alone[rows, y, x])
        index = (rows, slice(y * size, (y + 1) * size), slice(x * size, (x + 1) * size))
        return index, np.where(won, slopes[:, None, None], 0.0), np.broadcast_to(far[:, None, None], won.shape)
