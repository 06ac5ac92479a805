"""Maps: windows that slide over them, with a stride and a padded border, and duplicates among their positions.

Duplicates hold the same function of all parameters, as in a blank corner of an image. Every position of the data gets a
word of 64 bits that tells its numbers, and every window above it a word that tells those of its positions. Equal words,
equal data below (but for 1 in 2^64), and so equal values whatever the parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray

if TYPE_CHECKING:
    from fastcheck.networks.operators import Operator

__all__ = ["Labels", "Window", "fold", "mark_duplicates", "overlaid", "padded", "patches", "touched", "views"]

Window = tuple[int, int, int, int]
"""(y0, y1, x0, x1): the rows [y0, y1) and columns [x0, x1) of a map."""

_Any = TypeVar("_Any", bound=np.generic)


def padded(x: NDArray[_Any], padding: int, fill: float = 0.0) -> NDArray[_Any]:
    """Return a map (C, H, W, ...) with a border of ``fill``; the map itself if there is no border."""
    if not padding:
        return x
    pad = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (x.ndim - 3)
    return np.pad(x, pad, constant_values=fill)


def patches(x: NDArray[_Any], size: tuple[int, int], stride: int, padding: int) -> NDArray[_Any]:
    """Return the windows of a map: x (C, H, W, ...) -> (C, kh, kw, H', W', ...), padded with zeros."""
    parts = views(padded(x, padding), size, stride)
    out = np.empty((len(x), *size, *parts[0].shape[1:]), x.dtype)
    for (u, v), part in zip(np.ndindex(size), parts, strict=True):
        out[:, u, v] = part
    return out


def views(x: NDArray[_Any], size: tuple[int, int], stride: int) -> list[NDArray[_Any]]:
    """Return a view of each place of all windows of a map (C, H, W, ...): kh * kw arrays (C, H', W', ...)."""
    (kh, kw), (height, width) = size, x.shape[1:3]
    oh, ow = (height - kh) // stride + 1, (width - kw) // stride + 1
    return [x[:, u : u + stride * oh : stride, v : v + stride * ow : stride][:, :oh, :ow] for u, v in np.ndindex(size)]


def overlaid(
    parts: Iterable[FloatArray], shape: tuple[int, ...], size: tuple[int, int], stride: int, padding: int
) -> FloatArray:
    """Return a map of a shape (C, H, W, B) that adds up what each place of its windows has, parts (C, H', W', B)."""
    channels, height, width, samples = shape
    border = np.zeros((channels, height + 2 * padding, width + 2 * padding, samples))
    for view, part in zip(views(border, size, stride), parts, strict=True):
        view += part
    return border[:, padding : padding + height, padding : padding + width]


def touched(lo: int, hi: int, size: int, stride: int, padding: int, limit: int) -> tuple[int, int]:
    """Return the range of windows that overlap the positions [lo, hi) of one axis, of ``limit`` windows."""
    first = max(0, -((size - 1 - lo - padding) // stride))
    last = min(limit, (hi - 1 + padding) // stride + 1)
    return first, max(first, last)


# -- duplicates -------------------------------------------------------------------------------------------------------


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
    parts = views(padded(labels[None], padding), size, stride)
    total = np.zeros(parts[0].shape[1:], np.uint64)
    for part, key in zip(parts, _keys(size).ravel(), strict=True):
        total += part[0] * key
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
