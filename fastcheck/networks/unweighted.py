"""Operators without parameters that are no pools: normalisation, residual connections."""

from __future__ import annotations

import copy

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.kernels import network as kernels
from fastcheck.networks.changes import Change
from fastcheck.networks.duplicates import Labels
from fastcheck.networks.operators import Bits, Far, Operator, fast_through

__all__ = ["Normalise", "Residue"]


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
            return super().fast(change, far)
        rows = change.rows or slice(None)
        # One row of changes for each feature, all features or those that change.
        d = np.ascontiguousarray(change.d).reshape(len(self.out[rows]), -1, self.out.shape[-1])
        moved = kernels.normalise(d, self.centred[rows], self.out[rows], self.deviation[rows], self.variance[rows])
        return Change(moved.reshape(change.d.shape), change.rows)

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

    @property
    def odd(self) -> bool:
        """See `Operator.odd`."""
        return all(operator.odd for operator in self.inner)

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
