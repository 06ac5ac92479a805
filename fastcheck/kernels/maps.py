"""Kernels that carry small differences through pools; the conventions are those of `fastcheck.kernels.network`.

A pool's places are addressed by their row u and column v in a cell (i, j): the place of the map is
(i * stride + u - padding, j * stride + v - padding).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.network import REACH

__all__ = ["gaps", "merge", "place", "pool"]

FloatArray = NDArray[np.float64]
Labels = NDArray[np.uint64]
Flags = NDArray[np.uint8]
Geometry = tuple[int, int]

_kernel: Any = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, error_model="numpy")


@_kernel  # type: ignore[untyped-decorator]
def gaps(x: FloatArray, label: Labels, geometry: Geometry, won: FloatArray, half: FloatArray) -> None:
    """Tell the winner of each cell of a max pool, and how far the places are from a change of winner.

    Parameters
    ----------
    x : shape (C, H, W, B)
    label : uint64, shape (H, W, B) or (0, 0, 0)
        Twins of a winner have its label: they cannot part from it, and are left out.
    geometry : (stride, padding)
    won : shape (k, k, C, H', W', B), written
        1 for the first place that holds the maximum, 0 for the others.
    half : shape (k, k, C, H', W', B), written
        Half of how far a place is below the maximum; of the winner: above the others.
    """
    stride, padding = geometry
    k, _, channels, rows, columns, samples = won.shape
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
                                won[u, v, c, i, j, b] = 0.0
                                half[u, v, c, i, j, b] = np.inf
                            continue
                        for b in range(samples):
                            twin = known and label[y, z, b] == name[b]
                            gap = np.inf if twin else (best[b] - x[c, y, z, b]) / 2
                            mine = at[b] == u * k + v
                            nearest[b] = nearest[b] if mine else min(nearest[b], gap)
                            won[u, v, c, i, j, b] = 1.0 if mine else 0.0
                            half[u, v, c, i, j, b] = gap
                for b in range(samples):
                    half[at[b] // k, at[b] % k, c, i, j, b] = nearest[b]


@_kernel  # type: ignore[untyped-decorator]
def merge(
    c1: FloatArray,
    c2: FloatArray,
    rho: FloatArray,
    steepest: float,
    share: FloatArray,
    half: FloatArray,
    geometry: Geometry,
    slope: FloatArray,
    curve: FloatArray,
    together: FloatArray,
    alone: FloatArray,
) -> None:
    """Make one function of an activation and the pool above it.

    Parameters
    ----------
    c1, c2, rho : shape (C, H, W, B)
        The tables of the activation.
    steepest : float
        Its largest slope next to a kink, at least 1.
    share, half : shape (k, k, C, H', W', B)
        Weight of each place of each cell, and how far the activation may move there.
    geometry : (stride, padding)
    slope, curve : shape (k, k, C, H', W', B), written
        Slope and half curvature of the cell by each place; no curvature is written if ``curve`` has size zero.
    together : shape (C, H', W'), written
        How far all places of a cell may move at once, of every sample, and meet no kink.
    alone : shape (C, H', W', B), written
        How far any one place of a cell may move without a change of winner, or of the winner's piece.
    """
    stride, padding = geometry
    k, _, channels, rows, columns, samples = share.shape
    least = np.empty(samples)
    for c in range(channels):
        for i in range(rows):
            for j in range(columns):
                least[:] = np.inf
                alone[c, i, j] = np.inf
                for u in range(k):
                    for v in range(k):
                        y, z = i * stride + u - padding, j * stride + v - padding
                        if not (0 <= y < c1.shape[1] and 0 <= z < c1.shape[2]):
                            slope[u, v, c, i, j] = 0.0
                            if curve.size:
                                curve[u, v, c, i, j] = 0.0
                            continue
                        for b in range(samples):
                            a, q, part = c1[c, y, z, b], c2[c, y, z, b], share[u, v, c, i, j, b]
                            slope[u, v, c, i, j, b] = part * a
                            if curve.size:
                                curve[u, v, c, i, j, b] = part * q
                            rate = abs(a) + abs(q) * REACH
                            free = half[u, v, c, i, j, b] / rate
                            free = min(free if rate > 0 else np.inf, rho[c, y, z, b])
                            least[b] = min(least[b], free)
                            loser = half[u, v, c, i, j, b] / (2 * max(abs(a), steepest))
                            free = max(free, loser) if part == 0 else free
                            alone[c, i, j, b] = min(alone[c, i, j, b], free)
                worst = np.inf
                for b in range(samples):
                    worst = min(worst, least[b])
                together[c, i, j] = worst


@_kernel  # type: ignore[untyped-decorator]
def place(
    d: FloatArray,
    w: FloatArray,
    tap: tuple[int, int, int, int],
    slope: FloatArray,
    curve: FloatArray,
    together: FloatArray,
    geometry: Geometry,
    corner: Geometry,
    out: FloatArray,
) -> bool:
    """Carry changes of one place of a map through a convolution, an activation and a pool, all in one.

    Parameters
    ----------
    d : shape (m, S, B)
        Change k is of channel ``first + k`` alone.
    w : shape (O, C, kh, kw)
    tap : (first, y, x, stride)
        First channel, the place in the padded map, stride of the convolution.
    slope, curve, together
        See `merge`.
    geometry : (stride, padding)
        Of the pool.
    corner : (i, j)
        First cell of ``out``.
    out : shape (O, h, w, m, S, B), written

    Returns
    -------
    bool
        False as soon as a change may meet a kink: ``out`` is then of no use.
    """
    first, row, column, step = tap
    stride, padding = geometry
    k = slope.shape[0]
    many, signs, samples = d.shape
    curved = curve.size > 0
    size = np.zeros(many)
    for t in range(many):
        for s in range(signs):
            for b in range(samples):
                size[t] = max(size[t], abs(d[t, s, b]))
    met = np.empty((k * k, 4), np.int64)
    a, q = np.empty(samples), np.empty(samples)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            ci, cj = corner[0] + i, corner[1] + j
            count = 0
            for u in range(k):
                for v in range(k):
                    y = row - (ci * stride + u - padding) * step
                    z = column - (cj * stride + v - padding) * step
                    if 0 <= y < w.shape[2] and 0 <= z < w.shape[3]:
                        met[count, 0], met[count, 1], met[count, 2], met[count, 3] = u, v, y, z
                        count += 1
            for r in range(out.shape[0]):
                for t in range(many):
                    most = 0.0
                    a[:] = 0.0
                    q[:] = 0.0
                    for p in range(count):
                        u, v, y, z = met[p, 0], met[p, 1], met[p, 2], met[p, 3]
                        weight = w[r, first + t, y, z]
                        most = max(most, abs(weight))
                        for b in range(samples):
                            a[b] += weight * slope[u, v, r, ci, cj, b]
                        if curved:
                            for b in range(samples):
                                q[b] += weight * weight * curve[u, v, r, ci, cj, b]
                    if not most * size[t] <= together[r, ci, cj]:
                        return False
                    for s in range(signs):
                        if curved:
                            for b in range(samples):
                                e = d[t, s, b]
                                out[r, i, j, t, s, b] = e * (a[b] + q[b] * e)
                        else:
                            for b in range(samples):
                                out[r, i, j, t, s, b] = d[t, s, b] * a[b]
    return True


@_kernel  # type: ignore[untyped-decorator]
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
        Weight of each place of each cell (1 for the winner of a max pool, 1/k^2 for an average), and its reach.
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
