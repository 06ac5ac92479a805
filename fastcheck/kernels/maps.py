"""Kernels that carry small differences through pools; the conventions are those of `fastcheck.kernels.network`.

A pool's entries are addressed by their row u and column v in a cell (i, j): the position in the map is
(i * stride + u - padding, j * stride + v - padding).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.kernels.network import kernel

__all__ = ["gaps", "pool"]

Labels = NDArray[np.uint64]
Flags = NDArray[np.uint8]
Geometry = tuple[int, int]


@kernel  # type: ignore[untyped-decorator]
def gaps(x: FloatArray, label: Labels, geometry: Geometry, is_argmax: FloatArray, half_gap: FloatArray) -> None:
    """Tell the argmax of each cell of a max pool, and how far each position is from a change of it.

    Parameters
    ----------
    x : shape (C, H, W, B)
    label : uint64, shape (H, W, B) or (0, 0, 0)
        Duplicates of an argmax have its label: they cannot part from it, and are left out.
    geometry : (stride, padding)
    is_argmax : shape (k, k, C, H', W', B), written
        1 for the first position that holds the maximum, 0 for the others.
    half_gap : shape (k, k, C, H', W', B), written
        Half of how far a position is below the maximum; of the argmax: above the others.
    """
    stride, padding = geometry
    k, _, channels, rows, columns, samples = is_argmax.shape
    best, nearest = np.empty(samples), np.empty(samples)
    at, name = np.empty(samples, np.int64), np.zeros(samples, np.uint64)
    known = label.size > 0
    for c in range(channels):
        for i in range(rows):
            for j in range(columns):
                best[:] = -np.inf
                nearest[:] = np.inf
                at[:] = 0
                for u in range(k):
                    for v in range(k):
                        y, z = i * stride + u - padding, j * stride + v - padding
                        if not (0 <= y < x.shape[1] and 0 <= z < x.shape[2]):
                            continue
                        for b in range(samples):
                            more = x[c, y, z, b] > best[b]
                            best[b] = x[c, y, z, b] if more else best[b]
                            at[b] = u * k + v if more else at[b]
                            if known:
                                name[b] = label[y, z, b] if more else name[b]
                for u in range(k):
                    for v in range(k):
                        y, z = i * stride + u - padding, j * stride + v - padding
                        if not (0 <= y < x.shape[1] and 0 <= z < x.shape[2]):
                            for b in range(samples):
                                is_argmax[u, v, c, i, j, b] = 0.0
                                half_gap[u, v, c, i, j, b] = np.inf
                            continue
                        for b in range(samples):
                            duplicate = known and label[y, z, b] == name[b]
                            gap = np.inf if duplicate else (best[b] - x[c, y, z, b]) / 2
                            mine = at[b] == u * k + v
                            nearest[b] = nearest[b] if mine else min(nearest[b], gap)
                            is_argmax[u, v, c, i, j, b] = 1.0 if mine else 0.0
                            half_gap[u, v, c, i, j, b] = gap
                for b in range(samples):
                    half_gap[at[b] // k, at[b] % k, c, i, j, b] = nearest[b]


@kernel  # type: ignore[untyped-decorator]
def pool(
    d: FloatArray,
    share: FloatArray,
    rho: FloatArray,
    corner: tuple[int, int, int, int],
    stride: int,
    padding: int,
    out: FloatArray,
    far: Flags,
) -> None:
    """Add to each cell its share of the differences in its window.

    Parameters
    ----------
    d : shape (C, h, w, M, B)
        Differences of a window of the input; those outside are zero.
    share, rho : shape (k, k, C, H, W, B)
        Weight of each position of each cell (1 for the argmax of a max pool, 1/k^2 for an average), and its reach.
    corner : (y, x, cy, cx)
        First input row and column of the window, first row and column of the cells.
    out : shape (C, oh, ow, M, B), zeros on entry
    far : uint8, shape (M, B)
    """
    y0, x0, cy0, cx0 = corner
    for c in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for u in range(share.shape[0]):
                    y = (cy0 + i) * stride + u - padding - y0
                    if y < 0 or y >= d.shape[1]:
                        continue
                    for v in range(share.shape[1]):
                        x = (cx0 + j) * stride + v - padding - x0
                        if x < 0 or x >= d.shape[2]:
                            continue
                        for k in range(d.shape[3]):
                            for b in range(d.shape[4]):
                                e = d[c, y, x, k, b]
                                far[k, b] |= abs(e) > rho[u, v, c, cy0 + i, cx0 + j, b]
                                out[c, i, j, k, b] += share[u, v, c, cy0 + i, cx0 + j, b] * e
