"""Operators with parameters that are no products: embedding, scale and shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.networks.changes import Change
from fastcheck.networks.duplicates import Labels
from fastcheck.networks.linear import amount, apply
from fastcheck.networks.operators import Bits, Far, Transform, Weighted

__all__ = ["Embed", "Scale"]


class Embed(Weighted):
    """Rows of a table of shape (V, E) by token: ids (T, B) -> (T * E, B)."""

    single = False

    def __init__(self, ids: IntArray, name: str, w: FloatArray) -> None:
        self.inputs = ids.shape[:-1]
        self.ids = ids
        self.name = name
        self.shape = w.shape
        self.out = np.ascontiguousarray(w[ids].transpose(0, 2, 1)).reshape(-1, ids.shape[-1])
        self.blocks = {name: w.shape}

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        total = np.zeros(self.shape)
        per_token = slopes.reshape(len(self.ids), self.shape[1], -1).transpose(0, 2, 1)
        np.add.at(total, self.ids, per_token * amount(transform))
        return {self.name: total}

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        tokens, entry = np.divmod(flat, self.shape[1])
        d = np.zeros((len(self.ids), self.shape[1], len(flat), self.ids.shape[-1]))
        for k in range(len(flat)):
            d[:, entry[k], k] = h * (self.ids == tokens[k])
        return d.reshape(-1, *d.shape[2:])

    def rows_of(self, name: str, flat: IntArray) -> IntArray:
        """See `Weighted.rows_of`."""
        steps = np.arange(len(self.ids)) * self.shape[1]
        return np.asarray((steps[:, None] + np.unique(flat % self.shape[1])).ravel())


class Scale(Weighted):
    """gamma * x + beta, elementwise or per channel of a map."""

    def __init__(
        self, x: FloatArray, gamma: tuple[str, FloatArray] | None, beta: tuple[str, FloatArray] | None, channels: bool
    ) -> None:
        self.inputs = x.shape[:-1]
        self.x = x
        self.shape = self.inputs[:1] + (1,) * (len(self.inputs) - 1) if channels else self.inputs
        self.single = self.shape == self.inputs
        self.gamma = gamma[1].reshape(*self.shape, 1) if gamma else None
        self.names = (gamma[0] if gamma else None, beta[0] if beta else None)
        self.out = x if self.gamma is None else self.gamma * x
        if beta:
            self.out = self.out + beta[1].reshape(*self.shape, 1)
        self.blocks = {name: (int(np.prod(self.shape)),) for name in self.names if name}

    @property
    def odd(self) -> bool:
        """See `Operator.odd`."""
        return True

    def identify(self, labels: Labels) -> Labels | None:
        """See `Operator.identify`."""
        return None if self.single else labels

    def exact(self, d: FloatArray, bits: Bits) -> FloatArray:
        """See `Operator.exact`."""
        return d if self.gamma is None else self.gamma[..., None] * d

    def fast(self, change: Change, far: Far) -> Change:
        """See `Operator.fast`."""
        if change.rows is None or len(self.inputs) > 1:
            return super().fast(change, far)
        return change if self.gamma is None else Change(self.gamma[change.rows, None] * change.d, change.rows)

    def contract(self, slopes: FloatArray, transform: Transform | None = None) -> dict[str, FloatArray]:
        """See `Weighted.contract`."""
        axes = (*(i for i, n in enumerate(self.shape) if n != self.inputs[i]), self.x.ndim - 1)
        found: dict[str, FloatArray] = {}
        if self.names[0]:
            found[self.names[0]] = (slopes * apply(transform, self.x)).sum(axis=axes).ravel()
        if self.names[1]:
            found[self.names[1]] = slopes.sum(axis=axes).ravel() * amount(transform)
        return found

    def impulse(self, name: str, flat: IntArray, h: float) -> FloatArray:
        """See `Weighted.impulse`."""
        d = np.zeros((*self.inputs, len(flat), self.x.shape[-1]))
        for k, index in enumerate(flat):
            where = np.unravel_index(index, self.shape)
            at = tuple(i if n > 1 else slice(None) for i, n in zip(where, self.shape, strict=True))
            d[(*at, k)] = h * self.x[at] if name == self.names[0] else h
        return d

    def rows_of(self, name: str, flat: IntArray) -> NDArray[np.int64]:
        """See `Weighted.rows_of`."""
        return flat // int(np.prod(self.shape[1:]))
