"""Kernels that carry small differences through a network.

What is carried is d = [change of +h] - [change of -h], halved. Every d that meets a nonlinearity f is small (the
callers hold it below `REACH`), so that it comes out as d f'(z) up to a relative d^2 |f'''| / 6|f'|, which is below one
unit in the last place. The tables hold f' of every unit and sample, and ``rho``, how far d may go: to the nearest kink,
or to `REACH`. A difference that goes further is marked in ``far`` and measured again otherwise.

Arrays are C-contiguous float64. M counts the changes carried at once (S for each of m units), B the samples.
A pool's entries are addressed by their row u and column v in a cell (i, j): the position in the map is
(i * stride + u - padding, j * stride + v - padding).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray

__all__ = [
    "REACH",
    "activate_and_pool",
    "bend",
    "convolve_activate_and_pool",
    "gaps",
    "kernel",
    "label_loss",
    "normalise",
    "outer",
    "outer_bend",
    "pool",
]

Labels = NDArray[np.int64]
Flags = NDArray[np.uint8]

REACH = 2.0**-26

kernel: Any = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
_sums: Any = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")


@kernel  # type: ignore[untyped-decorator]
def bend(d: FloatArray, slope: FloatArray, rho: FloatArray, far: Flags) -> None:
    """Replace differences before an elementwise function by those after it.

    Parameters
    ----------
    d : shape (n, M, B), changed in place
    slope, rho : shape (n, B)
        f' and the reach at each unit and sample.
    far : uint8, shape (M, B)
        Set where a difference is beyond its reach.
    """
    for r in range(d.shape[0]):
        for k in range(d.shape[1]):
            for b in range(d.shape[2]):
                x = d[r, k, b]
                far[k, b] |= abs(x) > rho[r, b]
                d[r, k, b] = x * slope[r, b]


@kernel  # type: ignore[untyped-decorator]
def outer(w: FloatArray, s: FloatArray, out: FloatArray) -> None:
    """Write ``out[r, k, t, b] = w[r, k] * s[k, t, b]``: unit k alone changes, seen by every unit r above it."""
    for r in range(w.shape[0]):
        for k in range(w.shape[1]):
            for t in range(s.shape[1]):
                for b in range(s.shape[2]):
                    out[r, k, t, b] = w[r, k] * s[k, t, b]


@kernel  # type: ignore[untyped-decorator]
def outer_bend(w: FloatArray, s: FloatArray, slope: FloatArray, rho: FloatArray, out: FloatArray, far: Flags) -> None:
    """`outer` followed by `bend`, without a trip through memory; ``far`` has shape (m * S, B), ``out`` (n, m, S, B)."""
    many = s.shape[1]
    for r in range(w.shape[0]):
        for k in range(w.shape[1]):
            for t in range(many):
                for b in range(s.shape[2]):
                    x = w[r, k] * s[k, t, b]
                    far[k * many + t, b] |= abs(x) > rho[r, b]
                    out[r, k, t, b] = x * slope[r, b]


@kernel  # type: ignore[untyped-decorator]
def label_loss(d: FloatArray, label: Labels, slope: FloatArray, rho: FloatArray, far: Flags) -> FloatArray:
    """Return the change, shape (M, B), of a loss of the outputs less the label's output.

    It is sum_k slope_k (d_k - d_label). The slope of softmax cross-entropy is the softmax with the label's own entry
    put to zero: nothing cancels when the net is sure of itself.
    """
    classes, many, samples = d.shape
    out = np.zeros((many, samples))
    for k in range(many):
        own = np.empty(samples)
        for b in range(samples):
            own[b] = d[label[b], k, b]
        for c in range(classes):
            for b in range(samples):
                v = d[c, k, b] - own[b]
                far[k, b] |= abs(v) > rho[c, b]
                out[k, b] += v * slope[c, b]
    return out


@_sums  # type: ignore[untyped-decorator]
def normalise(d: FloatArray, out: FloatArray, deviation: FloatArray) -> FloatArray:
    """Return the change of (x - mean) / deviation over the samples, for changes d of x.

    Parameters
    ----------
    d : shape (n, M, B)
    out : shape (n, B)
        The normalised x.
    deviation : shape (n, 1)
        sqrt(variance + eps).
    """
    moved = np.empty_like(d)
    samples = d.shape[2]
    for r in range(d.shape[0]):
        for k in range(d.shape[1]):
            mean, spread = 0.0, 0.0
            for b in range(samples):
                mean += d[r, k, b]
            mean /= samples
            for b in range(samples):
                spread += (d[r, k, b] - mean) * out[r, b]
            spread /= samples
            for b in range(samples):
                moved[r, k, b] = (d[r, k, b] - mean - out[r, b] * spread) / deviation[r, 0]
    return moved


Words = NDArray[np.uint64]
Geometry = tuple[int, int]


@kernel  # type: ignore[untyped-decorator]
def gaps(x: FloatArray, label: Words, geometry: Geometry, is_argmax: FloatArray, half_gap: FloatArray) -> None:
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


# -- a convolution, an activation and a pool in one -------------------------------------------------------------------


@kernel  # type: ignore[untyped-decorator]
def activate_and_pool(
    c1: FloatArray,
    rho: FloatArray,
    bounds: tuple[float, float],
    share: FloatArray,
    half_gap: FloatArray,
    geometry: Geometry,
    slope: FloatArray,
    joint_reach: FloatArray,
    single_reach: FloatArray,
) -> None:
    """Make one function of an activation and the pool above it.

    Parameters
    ----------
    c1, rho : shape (C, H, W, B)
        The slopes and the reach of the activation.
    bounds : (steepest, curvature)
        Its largest slope next to a kink, at least 1, and its largest half curvature.
    share, half_gap : shape (k, k, C, H', W', B)
        Weight of each position of each cell, and how far the activation may move there.
    geometry : (stride, padding)
    slope : shape (k, k, C, H', W', B), written
        Slope of the cell by each position.
    joint_reach : shape (C, H', W'), written
        How far all positions of a cell may move at once, of every sample, and meet no kink.
    single_reach : shape (C, H', W', B), written
        How far any one position of a cell may move without a change of argmax, or of the argmax's piece.
    """
    stride, padding = geometry
    steepest, curvature = bounds
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
                            continue
                        for b in range(samples):
                            a, part = c1[c, y, z, b], share[u, v, c, i, j, b]
                            slope[u, v, c, i, j, b] = part * a
                            rate = abs(a) + curvature * REACH
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
    joint_reach: FloatArray,
    geometry: Geometry,
    corner: Geometry,
    out: FloatArray,
) -> bool:
    """Carry changes of one position of a map through a convolution, an activation and a pool, all in one.

    Parameters
    ----------
    d : shape (m, S, B)
        Change k is of channel ``first + k``.
    w : shape (O, C, kh, kw)
    tap : (first, y, x, stride)
        First channel, the position in the padded map, stride of the convolution.
    slope, joint_reach
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
    size = np.zeros(many)
    for t in range(many):
        for s in range(signs):
            for b in range(samples):
                size[t] = max(size[t], abs(d[t, s, b]))
    met = np.empty((k * k, 4), np.int64)
    a = np.empty(samples)
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
                    for p in range(count):
                        u, v, y, z = met[p, 0], met[p, 1], met[p, 2], met[p, 3]
                        weight = w[r, first + t, y, z]
                        most = max(most, abs(weight))
                        for b in range(samples):
                            a[b] += weight * slope[u, v, r, ci, cj, b]
                    if not most * size[t] <= joint_reach[r, ci, cj]:
                        return False
                    for s in range(signs):
                        for b in range(samples):
                            out[r, i, j, t, s, b] = d[t, s, b] * a[b]
    return True
