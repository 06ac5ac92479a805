"""Small changes on their way through the network, and where they start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.networks.windows import Window

if TYPE_CHECKING:
    from fastcheck.networks.operators import Operator

__all__ = ["Change", "Starts"]


@dataclass(frozen=True)
class Change:
    """Small changes on their way through the network.

    Attributes
    ----------
    d : float64
        Full: shape (*features, S, m', B) with S and m' flattened, that is (n or C, [h, w], m, S, B). Own (``rows``
        given): shape (m, S, B); change k is of feature (or channel) ``rows.start + k`` alone.
    rows : slice or None
        The features that change, one each.
    window : (y0, y1, x0, x1) or None
        Rows and columns of the map that ``d`` covers; the differences elsewhere are zero. None: all, or no map.
    """

    d: FloatArray
    rows: slice | None = None
    window: Window | None = None

    @property
    def lone(self) -> bool:
        """Whether each change is of one feature at one position."""
        y0, y1, x0, x1 = self.window or (0, 1, 0, 1)
        return self.rows is not None and y1 - y0 == 1 == x1 - x0

    @property
    def many(self) -> tuple[int, int, int]:
        """The trailing axes (m, S, B)."""
        m, s, b = self.d.shape[-3:]
        return m, s, b

    def spread(self, features: tuple[int, ...]) -> Change:
        """Return the same changes with one row per feature, still only over the window."""
        if self.rows is None:
            return self
        m = self.many[0]
        position = (1, 1) if self.window else ()
        d = np.zeros((features[0], *position, *self.many))
        index: tuple[Any, ...] = (np.arange(self.rows.start, self.rows.stop), *(0 for _ in position), np.arange(m))
        d[index] = self.d
        return Change(d, None, self.window)

    def everywhere(self, features: tuple[int, ...]) -> FloatArray:
        """Return the differences of every feature, shape (*features, m * S, B)."""
        m, s, b = self.many
        whole = self.spread(features)
        if whole.window is None:
            return whole.d.reshape(*features, m * s, b)
        d = np.zeros((*features, m * s, b))
        y0, y1, x0, x1 = whole.window
        d[:, y0:y1, x0:x1] = whole.d.reshape(*whole.d.shape[:3], m * s, b)
        return d


@dataclass(frozen=True)
class Starts:
    """Where changes of a map start: at each position by itself, leaving an operator, to go through those after it."""

    operator: Operator
    after: tuple[Operator, ...]

    def holding(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which starts, shape (C, H', W'), are needed for some entries (C, H, W) of the map."""
        return wanted

    def start(self, rows: slice, y: int, x: int, steps: FloatArray) -> Change:
        """Return the changes at one start in each of some channels; ``steps``: (m, S, B)."""
        return Change(steps, rows, (y, y + 1, x, x + 1))

    def share(
        self, rows: slice, y: int, x: int, slopes: FloatArray, far: NDArray[np.bool_], h: float
    ) -> tuple[tuple[slice | int, ...], FloatArray, NDArray[np.bool_]]:
        """Return the entries of the map that the slopes and marks (m, B) of one start are for, and those of each."""
        return (rows, y, x), slopes, far
