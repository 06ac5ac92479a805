"""Kernels of a convolution, an activation and a pool as one function; indices are those of `fastcheck.kernels.network`.

They are the fast path of `fastcheck.networks.fused`, and serve nothing else.
"""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.kernels.network import REACH, kernel

__all__ = ["activate_and_pool", "convolve_activate_and_pool"]

Geometry = tuple[int, int]


@kernel  # type: ignore[untyped-decorator]
def activate_and_pool(
    c1: FloatArray,
    c2: FloatArray,
    rho: FloatArray,
    steepest: float,
    share: FloatArray,
    half_gap: FloatArray,
    geometry: Geometry,
    slope: FloatArray,
    curve: FloatArray,
    joint_reach: FloatArray,
    single_reach: FloatArray,
) -> None:
    """Make one function of an activation and the pool above it.

    Parameters
    ----------
    c1, c2, rho : shape (C, H, W, B)
        The tables of the activation.
    steepest : float
        Its largest slope next to a kink, at least 1.
    share, half_gap : shape (k, k, C, H', W', B)
        Weight of each position of each cell, and how far the activation may move there.
    geometry : (stride, padding)
    slope, curve : shape (k, k, C, H', W', B), written
        Slope and half curvature of the cell by each position; no curvature is written if ``curve`` has size zero.
    joint_reach : shape (C, H', W'), written
        How far all positions of a cell may move at once, of every sample, and meet no kink.
    single_reach : shape (C, H', W', B), written
        How far any one position of a cell may move without a change of argmax, or of the argmax's piece.
    """
    stride, padding = geometry
    k, _, channels, rows, columns, samples = share.shape
    smallest = np.empty(samples)
    for c in range(channels):
        for i in range(rows):
            for j in range(columns):
                smallest[:] = np.inf
                single_reach[c, i, j] = np.inf
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
                            free = half_gap[u, v, c, i, j, b] / rate if rate > 0 else np.inf
                            free = min(free, rho[c, y, z, b])
                            smallest[b] = min(smallest[b], free)
                            loser = half_gap[u, v, c, i, j, b] / (2 * max(abs(a), steepest))
                            free = max(free, loser) if part == 0 else free
                            single_reach[c, i, j, b] = min(single_reach[c, i, j, b], free)
                worst = np.inf
                for b in range(samples):
                    worst = min(worst, smallest[b])
                joint_reach[c, i, j] = worst


@kernel  # type: ignore[untyped-decorator]
def convolve_activate_and_pool(
    d: FloatArray,
    w: FloatArray,
    tap: tuple[int, int, int, int],
    slope: FloatArray,
    curve: FloatArray,
    joint_reach: FloatArray,
    geometry: Geometry,
    corner: Geometry,
    out: FloatArray,
) -> bool:
    """Carry changes of one position of a map through a convolution, an activation and a pool, all in one.

    Parameters
    ----------
    d : shape (m, S, B)
        Change k is of channel ``first + k`` single_reach.
    w : shape (O, C, kh, kw)
    tap : (first, y, x, stride)
        First channel, the position in the padded map, stride of the convolution.
    slope, curve, joint_reach
        See `activate_and_pool`.
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
                    if not most * size[t] <= joint_reach[r, ci, cj]:
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
