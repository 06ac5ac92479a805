"""Kinks met by the unit engine: which there are, and the slopes to both sides of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import AT_KINK, CROSSED, Bend, Operator
from fastcheck.networks.pools import MaxPool
from fastcheck.networks.slopes import TINY, Slopes, chunks, one_sided, widest
from fastcheck.networks.unit import Field
from fastcheck.networks.unweighted import Residue

__all__ = ["settle"]

_ASKED = 1024  # entries of a field that are asked whether they crossed a kink; the others are taken to have


def settle(field: Field, loss: LossAt, crossed: NDArray[np.bool_], h: float) -> None:
    """Mark kinks, and measure one-sided slopes where each coordinate acts through one entry of a sample.

    Parameters
    ----------
    field : Field
        Measured at the first step and `again`.
    crossed : bool, shape (*features, B)
        What was far at the first step, h: it crossed a kink, or left the reach of the formulas of a curved function.
    """
    field.bits[field.far] |= AT_KINK
    if loss.kinked or any(_kinked(operator) for operator in field.after):
        samples = field.shape[1]
        bits = field.bits.reshape(-1, samples)
        resolved = np.argwhere((crossed & ~field.far).reshape(-1, samples))
        for b in np.unique(resolved[:_ASKED, 1]):
            part = resolved[:_ASKED][resolved[:_ASKED, 1] == b, 0]
            for entries, slopes in _sample_slopes(field, loss, int(b), part, h):
                bits[entries, b] |= slopes.bits[:, 0] & CROSSED
        bits[tuple(resolved[_ASKED:].T)] |= CROSSED
    if field.operator.single and field.far.any():
        _sides(field, loss)


def _sides(field: Field, loss: LossAt) -> None:
    """Measure the slopes to both sides of what is at a kink."""
    field.right, field.left = field.central.copy(), field.central.copy()
    far, right, left = (array.reshape(-1, field.shape[1]) for array in (field.far, field.right, field.left))
    for b in np.flatnonzero(far.any(axis=0)):
        for entries, slopes in _sample_slopes(field, loss, int(b), np.flatnonzero(far[:, b]), TINY):
            right[entries, b], left[entries, b] = slopes.right[:, 0], slopes.left[:, 0]


def _sample_slopes(
    field: Field, loss: LossAt, b: int, entries: IntArray, h: float
) -> Iterator[tuple[IntArray, Slopes]]:
    """Yield the one-sided slopes of one sample by some flat entries, by the exact formulas."""
    features, _ = field.shape
    one = np.array([b])
    after, here = [operator.select(one) for operator in field.after], loss.select(one)
    for part in chunks(entries, 4 * widest(field.after, int(np.prod(features)))):
        yield part, one_sided(after, here, _one_hot(features, part), h)


def _kinked(operator: Operator) -> bool:
    inner = operator.inner if isinstance(operator, Residue) else ()
    return (
        (isinstance(operator, Bend) and operator.activation.kinked)
        or isinstance(operator, MaxPool)
        or any(_kinked(part) for part in inner)
    )


def _one_hot(features: tuple[int, ...], entries: IntArray) -> Callable[[float], FloatArray]:
    """Return step -> differences of one sample in which change k moves entry k."""

    def move(h: float) -> FloatArray:
        d: FloatArray = np.zeros((int(np.prod(features)), len(entries), 1))
        d[entries, np.arange(len(entries))] = h
        return d.reshape(*features, len(entries), 1)

    return move
