"""Duplicates: positions of a map that hold the same function of all parameters, as in a blank corner of an image.

Every position of the data gets a word of 64 bits that tells its numbers, and every window above it a word that tells
those of its positions. Equal words, equal data below (but for 1 in 2^64), and so equal values whatever the parameters
are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.windows import padded

if TYPE_CHECKING:
    from fastcheck.networks.operators import Operator

__all__ = ["Labels", "fold", "mark_duplicates"]

Labels = NDArray[np.uint64]


def _mix(words: Labels) -> Labels:
    """Scatter 64-bit words so that near ones have nothing in common (Steele et al. 2014, splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def _keys(shape: tuple[int, ...]) -> Labels:
    """Return the same odd multipliers each time."""
    return np.random.default_rng(0).integers(1, 2**63, shape, np.uint64) * np.uint64(2) + np.uint64(1)


def fold(labels: Labels, size: tuple[int, int], stride: int, padding: int) -> Labels:
    """Return one label for each window of labels (H, W, B): equal windows, equal labels (but for 1 in 2^64)."""
    x, keys = padded(labels[None], padding)[0], _keys(size)
    oh, ow = ((n - k) // stride + 1 for n, k in zip(x.shape, size, strict=False))
    total = np.zeros((oh, ow, x.shape[2]), np.uint64)
    for u, v in np.ndindex(size):
        total += x[u : u + stride * oh : stride, v : v + stride * ow : stride][:oh, :ow] * keys[u, v]
    return _mix(total)


def mark_duplicates(operators: Iterable[Operator], x: NDArray[np.float64]) -> None:
    """Tell the operators, in their order, which positions of the map have the same data, x (C, H, W, B), below them."""
    if x.ndim != 4:
        return
    # x + 0.0 makes one zero of the two.
    words = _mix(np.ascontiguousarray(x + 0.0).view(np.uint64)) * _keys((len(x),))[:, None, None, None]
    labels: Labels | None = _mix(words.sum(axis=0, dtype=np.uint64))
    for operator in operators:
        if labels is None:
            return
        labels = operator.identify(labels)
