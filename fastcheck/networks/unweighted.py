"""Operators without parameters of their own: pools, normalisation, residual connections."""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np

from fastcheck.kernels import network as kernels
from fastcheck.networks.linear import fold, patches, touched
from fastcheck.networks.operators import (
    AT_KINK,
    CROSSED,
    Bits,
    Change,
    Far,
    FloatArray,
    IntArray,
    Labels,
    Operator,
    fast_through,
)

__all__ = ["AveragePool", "MaxPool", "Normalise", "Residue"]


class _Pool(Operator):
    """Cells of size x size places, every ``stride``, over a padded map (C, H, W)."""

    fill = 0.0

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        self.inputs = x.shape[:-1]
        self.size, self.stride, self.padding = size, stride, padding
        self.windows = self.gather(x, self.fill)
        self.place = self.windows.shape[2:4]

    def gather(self, x: FloatArray, fill: float = 0.0) -> FloatArray:
        """Return the windows with their places first: (k * k, C, H', W', ...)."""
        found = patches(x, (self.size, self.size), self.stride, self.padding, fill)
        return np.moveaxis(found.reshape(found.shape[0], self.size**2, *found.shape[3:]), 1, 0)

    def identify(self, labels: Labels) -> Labels:
        return fold(labels, (self.size, self.size), self.stride, self.padding)

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Return each place's weight in its cell and its reach, shape (k * k, C, H', W', B)."""
        raise NotImplementedError

    def fast(self, change: Change, far: Far) -> Change:
        m, s, b = change.many
        d = np.ascontiguousarray(change.spread(self.inputs).d)
        y0, y1, x0, x1 = change.window or (0, self.inputs[1], 0, self.inputs[2])
        cy0, cy1 = touched(y0, y1, self.size, self.stride, self.padding, self.place[0])
        cx0, cx1 = touched(x0, x1, self.size, self.stride, self.padding, self.place[1])
        out = np.zeros((len(d), cy1 - cy0, cx1 - cx0, m * s, b))
        share, rho = (t.reshape(self.size, self.size, *t.shape[1:]) for t in self.shares())
        flat = d.reshape(*d.shape[:3], m * s, b)
        kernels.pool(flat, share, rho, (y0, x0, cy0, cx0), self.stride, self.padding, out, far)
        return Change(out.reshape(*out.shape[:3], m, s, b), None, (cy0, cy1, cx0, cx1))


class MaxPool(_Pool):
    """The largest of each cell."""

    fill = -np.inf
    by_sample = ("below",)

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        super().__init__(x, size, stride, padding)
        self.out = self.windows.max(axis=0)
        self.below = self.windows - self.out
        self._shares: tuple[FloatArray, FloatArray] | None = None

    def identify(self, labels: Labels) -> Labels:
        """Label the cells, and leave out of each the twins of its winner.

        Twins hold the same function of all parameters below, such as the places of a blank corner of an image: a tie
        between them is no kink, and choosing the first gives the loss itself, for every theta.
        """
        around = patches(labels[None], (self.size, self.size), self.stride, self.padding)[0]
        around = around.reshape(-1, 1, *around.shape[2:])
        winner = self.winner[None]
        twins = np.take_along_axis(np.broadcast_to(around, self.below.shape), winner, axis=0) == around
        np.put_along_axis(twins, winner, False, axis=0)
        self.below[twins] = -np.inf
        self.__dict__.pop("gap", None)
        return super().identify(labels)

    @cached_property
    def winner(self) -> IntArray:
        """First place of each cell that holds its maximum, shape (C, H', W', B)."""
        return np.asarray(self.windows.argmax(axis=0))

    @cached_property
    def gap(self) -> FloatArray:
        """How far below the maximum each place is; of the winner: how far above the others. (k * k, C, H', W', B)."""
        gap = -self.below
        first = self.winner[None]
        others = gap.copy()
        np.put_along_axis(others, first, np.inf, axis=0)
        np.put_along_axis(gap, first, others.min(axis=0)[None], axis=0)
        return gap

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `_Pool.shares`."""
        if self._shares is None:
            share = np.zeros_like(self.windows)
            np.put_along_axis(share, self.winner[None], 1.0, axis=0)
            self._shares = share, np.ascontiguousarray(self.gap / 2)
        return self._shares

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        moved = self.gather(d)
        best = self.below[..., None, :] + moved
        out = best.max(axis=0)
        tied = self.below[..., None, :] == 0
        axes = (0, 1, 2)
        bits |= CROSSED * (np.where(tied, best, -np.inf).max(axis=0) < out).any(axis=axes)
        split = np.where(tied, moved, -np.inf).max(axis=0) != np.where(tied, moved, np.inf).min(axis=0)
        bits |= AT_KINK * split.any(axis=axes)
        return np.asarray(out)


class AveragePool(_Pool):
    """The mean of each cell, padding counted as zeros."""

    def __init__(self, x: FloatArray, size: int, stride: int, padding: int) -> None:
        super().__init__(x, size, stride, padding)
        self.out = self.windows.mean(axis=0)

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """See `_Pool.shares`."""
        shape = self.windows.shape
        return np.full(shape, 1.0 / self.size**2), np.full(shape, np.inf)

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        return np.asarray(self.gather(d).mean(axis=0))


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

    def identify(self, labels: Labels) -> Labels:
        """See `Operator.identify`."""
        return labels


class Residue(Operator):
    """x + inner(x)."""

    def __init__(self, x: FloatArray, inner: tuple[Operator, ...]) -> None:
        self.inputs = x.shape[:-1]
        self.inner = inner
        self.couples = any(operator.couples for operator in inner)
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
