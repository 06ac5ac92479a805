"""The fast path of convolutional nets: an activation and the pool above it as one function of a change.

It enters twice. `through_pool` carries the change of one position of a map through a convolution, an activation and a
pool in one kernel. `ArgmaxCells` starts above a max pool instead of below it: only the argmax of each cell can move the
loss, so the positions of one cell are moved together, in one propagation: each sample's argmax by +h and -h, the others
not at all, as their exact differences after the pool are zero as long as they stay below it. Where a kink may be met on
the way (a tie, or a gap that the step may close) neither applies, and the operators do it one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.kernels import network as kernels
from fastcheck.networks.operators import Bend, Change, Operator, Starts
from fastcheck.networks.unweighted import MaxPool, Pool

if TYPE_CHECKING:
    from fastcheck.networks.weighted import Convolve

__all__ = ["ArgmaxCells", "through_pool"]


def through_pool(convolution: Convolve, following: tuple[Operator, ...], change: Change) -> tuple[Change, int] | None:
    """Carry changes, each of one channel at one position, through the convolution and the pool that follows it.

    A pool must be the first of what follows, or the second after an activation. Returns what leaves it, and how many of
    the following operators that took; None where there is no pool, or it is not sure that no kink is passed on the way.
    """
    bend = _activation(following)
    taken = int(bend is not None)
    if len(following) == taken or not isinstance(pool := following[taken], Pool):
        return None
    y, _, x, _ = window = change.window or (0, 1, 0, 1)
    y0, y1, x0, x1 = reach = pool.touched(convolution.touched(window))
    out = np.empty((len(convolution.w), y1 - y0, x1 - x0, *change.many))
    first = 0 if change.rows is None else change.rows.start
    tap = (first, y + convolution.padding, x + convolution.padding, convolution.stride)
    cells = Cells.of(pool, bend)
    tables, geometry = (cells.slope, cells.joint_reach), (pool.stride, pool.padding)
    d = np.ascontiguousarray(change.d)
    if not kernels.convolve_activate_and_pool(d, convolution.w, tap, *tables, geometry, (y0, x0), out):
        return None
    return Change(out, None, reach), taken + 1


@dataclass(frozen=True)
class Cells:
    """An activation and the pool above it, as one function of the k x k positions of each cell.

    Attributes
    ----------
    slope : float64, shape (k, k, C, H', W', B)
        Slope by each position.
    joint_reach : float64, shape (C, H', W')
        How far all positions of a cell may move at once, of every sample, and meet no kink.
    single_reach : float64, shape (C, H', W', B)
        How far any one position may move without a change of what the argmax does.
    """

    slope: FloatArray
    joint_reach: FloatArray
    single_reach: FloatArray

    @staticmethod
    def of(pool: Pool, bend: Bend | None) -> Cells:
        """Return the pool together with the activation that stands below it; the pool keeps them."""
        if pool.cells is None:
            share, half_gap = pool.shares
            tables = bend.tables if bend else (np.ones_like(pool.x), np.full_like(pool.x, np.inf))
            slope, single, joint = np.empty_like(share), np.empty(share.shape[2:]), np.empty(share.shape[2:-1])
            geometry = (pool.stride, pool.padding)
            kernels.activate_and_pool(*tables, _bounds(bend), share, half_gap, geometry, slope, joint, single)
            pool.cells = Cells(slope, joint, single)
        return pool.cells


@dataclass(frozen=True)
class ArgmaxCells(Starts):
    """The cells of a max pool without overlap or padding, as starts of changes; `after` is what follows the pool."""

    operator: MaxPool
    after: tuple[Operator, ...]
    cells: Cells

    @staticmethod
    def of(after: tuple[Operator, ...]) -> ArgmaxCells | None:
        """Return the cells if an (activation and a) max pool without overlap or padding comes next, else None."""
        bend = _activation(after)
        rest = after[1:] if bend else after
        if not (rest and isinstance(rest[0], MaxPool) and rest[0].size == rest[0].stride and not rest[0].padding):
            return None
        return ArgmaxCells(rest[0], rest[1:], Cells.of(rest[0], bend))

    def start(self, rows: slice, y: int, x: int, steps: FloatArray) -> Change:
        """Return the changes of one cell in each of some channels, as they leave the pool; ``steps``: (m, S, B)."""
        at = (slice(None), slice(None), rows, y, x)
        d = self.cells.slope[at].sum(axis=(0, 1))[:, None] * steps
        return Change(d, rows, (y, y + 1, x, x + 1))

    def holding(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which cells, shape (C, H', W'), hold any of some positions (C, H, W)."""
        (height, width), size = self.operator.map_shape, self.operator.size
        shape = (len(wanted), height, size, width, size)
        return np.asarray(wanted[:, : height * size, : width * size].reshape(shape).any(axis=(2, 4)))

    def share(
        self, rows: slice, y: int, x: int, slopes: FloatArray, far: NDArray[np.bool_], h: float
    ) -> tuple[tuple[slice | int, ...], FloatArray, NDArray[np.bool_]]:
        """Share the slopes (m, B) of a cell out to its positions, all to the argmax; marks are of every position.

        Returns
        -------
        index : of the cell's positions
        slopes, far : shape (m, k, k, B)
        """
        size = self.operator.size
        is_argmax = self.operator.shares[0][:, :, rows, y, x].transpose(2, 0, 1, 3) > 0
        far = far | (h > self.cells.single_reach[rows, y, x])
        index = (rows, slice(y * size, (y + 1) * size), slice(x * size, (x + 1) * size))
        slopes = np.where(is_argmax, slopes[:, None, None], 0.0)
        return index, slopes, np.broadcast_to(far[:, None, None], is_argmax.shape)


def _activation(operators: tuple[Operator, ...]) -> Bend | None:
    return operators[0] if operators and isinstance(operators[0], Bend) else None


def _bounds(bend: Bend | None) -> tuple[float, float]:
    """Return the largest slope of an activation next to a kink, at least 1, and its largest half curvature."""
    if bend is None:
        return 1.0, 0.0
    tiny = np.finfo(np.float64).tiny
    steepest = float(np.abs(bend.activation.slope(np.array([-tiny, tiny]))).max())
    return max(1.0, steepest), bend.activation.curvature
