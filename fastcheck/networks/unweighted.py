"""Operators without parameters: normalisation, residual connections, pools."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.kernels import network as kernels
from fastcheck.networks.operators import AT_KINK, CROSSED, Bits, Change, Far, Operator, fast_through
from fastcheck.networks.windows import Labels, Window, fold, overlaid, padded, touched, views

if TYPE_CHECKING:
    from fastcheck.networks.fused import Cells

__all__ = ["AveragePool", "MaxPool", "Normalise", "Pool", "Residue"]


class Normalise(Operator):
    """(x - mean) / sqrt(variance + eps), over the features of a sample, or over the samples (and map) of a channel.

    Parameters
    ----------
    x : shape (*features, B)
    eps : float
    over_samples : bool
        True is batch normalisation with the statistics of the batch: samples are coupled.
    """

    def __init__(self, x: FloatArray, eps: float, over_samples: bool) -> None:
        self.inputs = x.shape[:-1]
        n = len(self.inputs)
        self.couples = over_samples
        # Axes of x; in a difference (*features, m, B) the samples are one axis further.
        self.by_sample = () if over_samples else ("centred", "out", "deviation", "variance")
        self._axes = (*range(1, n), n) if over_samples else tuple(range(n))
        self._moved = (*range(1, n), n + 1) if over_samples else tuple(range(n))
        self.centred = x - x.mean(axis=self._axes, keepdims=True)
        variance = (self.centred**2).mean(axis=self._axes, keepdims=True) + eps
        self.deviation = np.sqrt(variance)
        self.variance = variance
        self.out = self.centred / self.deviation

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        # With c the centred input and s the deviation: (c + dc)/s' - c/s = (dc - (c/s) ds)/s'.
        c, out = self.centred[..., None, :], self.out[..., None, :]
        s, variance = self.deviation[..., None, :], self.variance[..., None, :]
        dc = d - d.mean(axis=self._moved, keepdims=True)
        dv = (dc * (2 * c + dc)).mean(axis=self._moved, keepdims=True)
        later = np.sqrt(variance + dv)
        return np.asarray((dc - out * (dv / (later + s))) / later)

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        if len(self.inputs) > 1 or not self.couples:
            d = change.everywhere(self.inputs)
            dc = d - d.mean(axis=self._moved, keepdims=True)
            out, deviation = self.out[..., None, :], self.deviation[..., None, :]
            moved = (dc - out * (out * dc).mean(axis=self._moved, keepdims=True)) / deviation
            return Change(moved.reshape(*self.inputs, *change.many))
        rows = change.rows or slice(None)
        # One row of changes for each feature, all features or those that change.
        d = np.ascontiguousarray(change.d).reshape(len(self.out[rows]), -1, self.out.shape[-1])
        moved = kernels.normalise(d, self.out[rows], self.deviation[rows])
        return Change(moved.reshape(change.d.shape), change.rows)

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        n, out2 = squares.size / self.deviation.size, self.out**2
        mean, slope = (np.mean(x, axis=self._axes, keepdims=True) for x in (squares, out2 * squares))
        return np.asarray((squares + (mean + out2 * slope) / n) / self.deviation**2)

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return labels


class Residue(Operator):
    """x + inner(x)."""

    def __init__(self, x: FloatArray, inner: tuple[Operator, ...]) -> None:
        self.inputs = x.shape[:-1]
        self.inner = inner
        self.couples = any(operator.couples for operator in inner)
        self.kinked = any(operator.kinked for operator in inner)
        self.out = x + inner[-1].out if inner else x

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        moved = d
        for operator in self.inner:
            moved = operator.exact(moved, bits)
        return d + moved if self.inner else d

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        m, s, b = change.many
        d = change.everywhere(self.inputs)
        start = Change(d.copy().reshape(*self.inputs, m, s, b))
        moved = fast_through(self.inner, start, far).everywhere(self.inputs)
        return Change((d + moved).reshape(*self.inputs, m, s, b))

    def select(self, samples: IntArray) -> Residue:
        """See `Operator.select`."""
        chosen = copy.copy(self)
        chosen.inner = tuple(operator.select(samples) for operator in self.inner)
        return chosen

    def identify(self, labels: Labels) -> Labels | None:
        """See `Operator.identify`."""
        moved: Labels | None = labels
        for operator in self.inner:
            moved = None if moved is None else operator.identify(moved)
        return None if moved is None else labels * np.uint64(0x9E3779B97F4A7C15) + moved


class Pool(Operator):
    """Cells of size x size positions, every ``stride``, over a padded map (C, H, W)."""

    fill = 0.0

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        self.inputs = x.shape[:-1]
        self.size, self.stride, self.padding = size, stride, padding
        self.x = x
        self.map_shape = (self._count(x.shape[1]), self._count(x.shape[2]))
        self.cells: Cells | None = None
        """See `fastcheck.networks.fused`."""

    def _count(self, n: int) -> int:
        return (n + 2 * self.padding - self.size) // self.stride + 1

    def views(self, x: FloatArray) -> list[FloatArray]:
        """Return a view of each position in all cells: k * k arrays of shape (C, H', W', ...)."""
        return views(padded(x, self.padding, self.fill), (self.size, self.size), self.stride)

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return fold(labels, (self.size, self.size), self.stride, self.padding)

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Each position's weight in its cell, and how far it may move, shape (k, k, C, H', W', B)."""
        raise NotImplementedError

    def squares_below(self, squares: FloatArray) -> FloatArray:
        """See `Operator.squares_below`."""
        parts = (share**2 * squares for share in self.shares[0].reshape(-1, *self.out.shape))
        return overlaid(parts, (*self.inputs, squares.shape[-1]), (self.size, self.size), self.stride, self.padding)

    def touched(self, window: Window) -> Window:
        """Return the cells that a window of positions reaches."""
        ys = touched(window[0], window[1], self.size, self.stride, self.padding, self.map_shape[0])
        xs = touched(window[2], window[3], self.size, self.stride, self.padding, self.map_shape[1])
        return *ys, *xs

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        window = change.window or (0, self.inputs[1], 0, self.inputs[2])
        y0, y1, x0, x1 = reach = self.touched(window)
        m, s, b = change.many
        if change.lone and y1 - y0 == 1 == x1 - x0:
            u, v = window[0] + self.padding - y0 * self.stride, window[2] + self.padding - x0 * self.stride
            share, half_gap = (table[u, v, change.rows, y0, x0][:, None] for table in self.shares)
            far |= (np.abs(change.d) > half_gap).reshape(m * s, b)
            return Change(share * change.d, change.rows, reach)
        d = np.ascontiguousarray(change.spread(self.inputs).d)
        out = np.zeros((len(d), y1 - y0, x1 - x0, m * s, b))
        flat, corner = d.reshape(*d.shape[:3], m * s, b), (window[0], window[2], y0, x0)
        kernels.pool(flat, *self.shares, corner, self.stride, self.padding, out, far)
        return Change(out.reshape(*out.shape[:3], m, s, b), None, reach)


class MaxPool(Pool):
    """The largest of each cell."""

    fill = -np.inf
    kinked = True
    by_sample = ("below",)

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        super().__init__(x, size, stride, padding)
        self.out = np.maximum.reduce(self.views(x))
        self.labels: Labels = np.empty((0, 0, 0), np.uint64)

    def identify(self, labels: Labels) -> Labels:
        """Label the cells, and leave out of each the duplicates of its argmax.

        Duplicates hold the same function of all parameters below, as in a blank corner of an image: a tie between
        them is no kink, and choosing the first gives the loss itself, for every theta.
        """
        self.labels = np.ascontiguousarray(labels)
        return super().identify(labels)

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `Pool.shares`."""
        shape = (self.size, self.size, *self.out.shape)
        is_argmax, half_gap = np.empty(shape), np.empty(shape)
        kernels.gaps(np.ascontiguousarray(self.x), self.labels, (self.stride, self.padding), is_argmax, half_gap)
        return is_argmax, half_gap

    @cached_property
    def below(self) -> FloatArray:
        """How far each position is below the maximum, at most 0; -inf for duplicates. Shape (k * k, C, H', W', B)."""
        is_argmax, half_gap = (table.reshape(-1, *self.out.shape) for table in self.shares)
        return np.where(is_argmax > 0, 0.0, -2 * half_gap)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        moved = np.stack(self.views(d))
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
        self.out = np.asarray(sum(self.views(x)[1:], self.views(x)[0])) / size**2

    @cached_property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `Pool.shares`."""
        shape = (self.size, self.size, *self.out.shape)
        return np.full(shape, 1.0 / self.size**2), np.full(shape, np.inf)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        return np.asarray(np.mean(self.views(d), axis=0))
