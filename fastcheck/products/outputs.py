"""Which outputs is the error in? One direction is measured for all outputs at once, then cotangents are cut up."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import LossError
from fastcheck.products.point import Point

__all__ = ["slope", "suspects"]

PARTS = 16  # that a range of outputs is cut into
MOST = 4  # outputs looked for
CALLS = 512  # of the claim
FAINT = 1e-3  # of the largest residual: what may be the noise of the measured slope


def slope(point: Point, v: FloatArray, step: float) -> FloatArray:
    """Return the central difference of f along v, shape (m,), by two evaluations of the function; NaN if it fails."""
    try:
        with np.errstate(all="ignore"):
            return (point.at(point.theta + step * v) - point.at(point.theta - step * v)) / (2 * step)
    except LossError:
        return np.full(point.outputs.size, np.nan)


def suspects(point: Point, claim: Callable[[FloatArray], float], u: FloatArray, measured: FloatArray) -> list[int]:
    """Return the outputs, at most `MOST`, in which claim and measurement differ most; they are still to be confirmed.

    Parameters
    ----------
    point : Point
        The function.
    claim : callable
        The claimed <u, J v> of a cotangent u.
    u : float64, shape (m,)
        The cotangent that showed the error.
    measured : float64, shape (m,)
        J v.

    Notes
    -----
    Best first: the range of outputs with the largest residual is cut into `PARTS`, so a single wrong output costs
    16 log16(m) calls of the claim and no evaluation of the function.
    """

    def residual(start: int, stop: int) -> float:
        part = np.zeros_like(u)
        part[start:stop] = u[start:stop]
        return abs(claim(part) - float(part @ measured))

    if not np.isfinite(measured).all():
        return []
    ranges = [(-residual(b.start, b.stop), b.start, b.stop) for b in point.outputs.blocks if b.size]
    heapq.heapify(ranges)
    calls, found = len(ranges), list[int]()
    largest = 0.0
    while ranges and len(found) < MOST and calls < CALLS:
        minus, start, stop = heapq.heappop(ranges)
        if -minus <= FAINT * largest:
            break
        if stop - start == 1:
            largest = max(largest, -minus)
            found.append(start)
            continue
        cuts = np.unique(np.linspace(start, stop, PARTS + 1).astype(int)).tolist()
        for low, high in itertools.pairwise(cuts):
            heapq.heappush(ranges, (-residual(low, high), low, high))
        calls += len(cuts) - 1
    return found
