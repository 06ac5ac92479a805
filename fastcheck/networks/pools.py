"""Pools, and a pool together with the activation below it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastcheck.kernels import maps as kernels
from fastcheck.networks.changes import Change
from fastcheck.networks.operators import AT_KINK, CROSSED, Bend, Bits, Far, FloatArray, Operator
from fastcheck.networks.twins import Labels, fold
from fastcheck.networks.windows import Window, padded, touched

__all__ = ["AveragePool", "Cells", "MaxPool", "Pool"]


@dataclass(frozen=True)
class Cells:
    """An activation and the pool above it, as one function of the k x k places of each cell.

    Attributes
    ----------
    slope, curve : float64, shape (k, k, C, H', W', B)
        Slope and half curvature by each place; ``curve`` has size zero if there is no curvature.
    together : float64, shape (C, H', W')
        How far all places of a cell may move at once, of every sample, and meet no kink.
    alone : float64, shape (C, H', W', B)
        How far any one place may move without a change of what the winner does.
    """

    slope: FloatArray
    curve: FloatArray
    together: FloatArray
    alone: FloatArray


class Pool(Operator):
    """Cells of size x size places, every ``stride``, over a padded map (C, H, W)."""

    fill = 0.0

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        self.inputs = x.shape[:-1]
        self.size, self.stride, self.padding = size, stride, padding
        self.x = x
        self.place = (self._count(x.shape[1]), self._count(x.shape[2]))
        self._cells: Cells | None = None

    def _count(self, n: int) -> int:
        return (n + 2 * self.padding - self.size) // self.stride + 1

    def places(self, x: FloatArray) -> list[FloatArray]:
        """Return a view of each place of all cells: k * k arrays of shape (C, H', W', ...)."""
        x, (h, w), s = padded(x, self.padding, self.fill), self.place, self.stride
        return [x[:, u : u + s * h : s, v : v + s * w : s][:, :h, :w] for u, v in np.ndindex(self.size, self.size)]

    @property
    def odd(self) -> bool:
        """See `Operator.odd`."""
        return True

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return fold(labels, (self.size, self.size), self.stride, self.padding)

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Each place's weight in its cell, and how far it may move, shape (k, k, C, H', W', B)."""
        raise NotImplementedError

    def cells(self, bend: Bend | None) -> Cells:
        """Return the pool together with the activation that stands below it."""
        if self._cells is None:
            share, half = self.shares
            straight = (np.full_like(self.x, value) for value in (1.0, 0.0, np.inf))
            c1, c2, rho = bend.tables if bend else straight
            slope, alone, together = np.empty_like(share), np.empty(share.shape[2:]), np.empty(share.shape[2:-1])
            curve = np.empty(share.shape if bend and bend.curved else (0,) * 6)
            steepest = bend.steepest if bend else 1.0
            geometry = (self.stride, self.padding)
            kernels.merge(c1, c2, rho, steepest, share, half, geometry, slope, curve, together, alone)
            self._cells = Cells(slope, curve, together, alone)
        return self._cells

    def touched(self, window: Window) -> Window:
        """Return the cells that a window of places reaches."""
        ys = touched(window[0], window[1], self.size, self.stride, self.padding, self.place[0])
        xs = touched(window[2], window[3], self.size, self.stride, self.padding, self.place[1])
        return *ys, *xs

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        window = change.window or (0, self.inputs[1], 0, self.inputs[2])
        y0, y1, x0, x1 = reach = self.touched(window)
        m, s, b = change.many
        if change.lone and y1 - y0 == 1 == x1 - x0:
            u, v = window[0] + self.padding - y0 * self.stride, window[2] + self.padding - x0 * self.stride
            share, half = (table[u, v, change.rows, y0, x0][:, None] for table in self.shares)
            far |= (np.abs(change.d) > half).reshape(m * s, b)
            return Change(share * change.d, change.rows, reach)
        d = np.ascontiguousarray(change.spread(self.inputs).d)
        out = np.zeros((len(d), y1 - y0, x1 - x0, m * s, b))
        flat, corner = d.reshape(*d.shape[:3], m * s, b), (window[0], window[2], y0, x0)
        kernels.pool(flat, *self.shares, corner, self.stride, self.padding, out, far)
        return Change(out.reshape(*out.shape[:3], m, s, b), None, reach)


class MaxPool(Pool):
    """The largest of each cell."""

    fill = -np.inf
    by_sample = ("below",)

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        super().__init__(x, size, stride, padding)
        self.out = np.maximum.reduce(self.places(x))
        self.labels: Labels = np.empty((0, 0, 0), np.uint64)

    def identify(self, labels: Labels) -> Labels:
        """Label the cells, and leave out of each the twins of its winner.

        Twins hold the same function of all parameters below, such as the places of a blank corner of an image: a tie
        between them is no kink, and choosing the first gives the loss itself, for every theta.
        """
        self.labels = np.ascontiguousarray(labels)
        return super().identify(labels)

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `Pool.shares`."""
        shape = (self.size, self.size, *self.out.shape)
        won, half = np.empty(shape), np.empty(shape)
        kernels.gaps(np.ascontiguousarray(self.x), self.labels, (self.stride, self.padding), won, half)
        return won, half

    @cached_property
    def below(self) -> FloatArray:
        """How far each place is below the maximum, at most 0; minus infinity for twins. Shape (k * k, C, H', W', B)."""
        won, half = (table.reshape(-1, *self.out.shape) for table in self.shares)
        return np.where(won > 0, 0.0, -2 * half)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        moved = np.stack(self.places(d))
        best = self.below[..., None, :] + moved
        out = best.max(axis=0)
        tied = self.below[..., None, :] == 0
        axes = (0, 1, 2)
        bits |= CROSSED * (np.where(tied, best, -np.inf).max(axis=0) < out).any(axis=axes)
        split = np.where(tied, moved, -np.inf).max(axis=0) != np.where(tied, moved, np.inf).min(axis=0)
        bits |= AT_KINK * split.any(axis=axes)
        return np.asarray(out)


class AveragePool(Pool):
    """The mean of each cell, padding counted as zeros."""

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        super().__init__(x, size, stride, padding)
        self.out = np.asarray(sum(self.places(x)[1:], self.places(x)[0])) / size**2

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `Pool.shares`."""
        shape = (self.size, self.size, *self.out.shape)
        return np.full(shape, 1.0 / self.size**2), np.full(shape, np.inf)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        return np.asarray(np.mean(self.places(d), axis=0))
