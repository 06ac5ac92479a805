"""The geometry of windows on a map: sliding, with a stride, over a padded border."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "padded", "patches", "touched"]

Window = tuple[int, int, int, int]
"""(y0, y1, x0, x1): the rows [y0, y1) and columns [x0, x1) of a map."""

_Any = TypeVar("_Any", bound=np.generic)


def padded(x: NDArray[_Any], padding: int, fill: float = 0.0) -> NDArray[_Any]:
    """Return a map (C, H, W, ...) with a border of ``fill``; the map itself if there is no border."""
    if not padding:
        return x
    pad = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (x.ndim - 3)
    return np.pad(x, pad, constant_values=fill)


def patches(x: NDArray[_Any], size: tuple[int, int], stride: int, padding: int, fill: float = 0.0) -> NDArray[_Any]:
    """Return the windows of a map: x (C, H, W, ...) -> (C, kh, kw, H', W', ...), padded with ``fill``."""
    x = padded(x, padding, fill)
    (kh, kw), (_, height, width) = size, x.shape[:3]
    oh, ow = (height - kh) // stride + 1, (width - kw) // stride + 1
    out = np.empty((x.shape[0], kh, kw, oh, ow, *x.shape[3:]), x.dtype)
    for u in range(kh):
        for v in range(kw):
            out[:, u, v] = x[:, u : u + stride * oh : stride, v : v + stride * ow : stride][:, :oh, :ow]
    return out


def touched(lo: int, hi: int, size: int, stride: int, padding: int, limit: int) -> tuple[int, int]:
    """Return the range of windows that overlap the positions [lo, hi) of one axis, of ``limit`` windows."""
    first = max(0, -((size - 1 - lo - padding) // stride))
    last = min(limit, (hi - 1 + padding) // stride + 1)
    return first, max(first, last)
