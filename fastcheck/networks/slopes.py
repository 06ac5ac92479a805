"""One-sided slopes by exact differences of any size: the slow and obvious way through a network.

Also what both engines write their measurements to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray, pieces
from fastcheck.estimates import Measured, Status
from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import Bits, Operator

__all__ = ["STEP", "TINY", "Slopes", "Tally", "chunks", "one_sided", "widest"]

STEP = 2.0**-30
"""The first step: the truncation of a central difference, in units of its square, is below any rounding."""

TINY = 2.0**-70
"""The step that decides at a kink. Differences are propagated, not subtracted, so nothing is lost at such a step; it
passes a kink only where a pre-activation is nearer to it than its own rounding."""

MARGIN = 16.0  # on the rounding of a derivative
_HELD = 2**21  # numbers
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Slopes:
    """Slopes of each sample's loss to both sides, shape (m, B), and the kinks met on the way (a bit set, (m, B))."""

    right: FloatArray
    left: FloatArray
    bits: Bits


def one_sided(operators: Sequence[Operator], loss: LossAt, move: Callable[[float], FloatArray], h: float) -> Slopes:
    """Measure (J_b(+h) - J_b) / h and (J_b - J_b(-h)) / h of every sample b by exact differences.

    `move` gives, for a step, the differences that enter the first operator, shape (*features, m, B).
    """
    sides = []
    start = move(h)
    bits = np.zeros(start.shape[-2:], np.uint8)
    for sign in (1.0, -1.0):
        d = sign * start
        for operator in operators:
            d = operator.exact(d, bits)
        sides.append(sign * loss.exact(d.reshape(-1, *d.shape[-2:]), bits) / h)
    return Slopes(sides[0], sides[1], bits)


def widest(operators: Sequence[Operator], size: int) -> int:
    """Return the largest number of features on the way, at least ``size``."""
    return max([size, *(operator.out[..., 0].size for operator in operators)])


def chunks(indices: IntArray, width: int) -> Iterator[IntArray]:
    """Cut indices so that ``width`` numbers for each stay below what is to be held at once."""
    size = max(1, _HELD // max(width, 1))
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class Tally:
    """Measurements of all P coordinates, filled in block by block: arrays of shape (P,).

    The noise is the rounding of the value; the sides are the slopes to the right and to the left, which are kept only
    where there are kinks.
    """

    def __init__(self, size: int) -> None:
        self.value = np.zeros(size)
        self.noise = np.zeros(size)
        self.status = np.zeros(size, np.uint8)
        self._parted: list[tuple[IntArray, FloatArray, FloatArray]] = []

    @cached_property
    def sides(self) -> tuple[FloatArray, FloatArray]:
        """One-sided slopes, right and left, NaN where they are one; to be asked for when all is measured."""
        right, left = np.full(len(self.value), np.nan), np.full(len(self.value), np.nan)
        for at, *sides in self._parted:
            right[at], left[at] = sides
        return right, left

    @staticmethod
    def rounding(scale: FloatArray, depth: int) -> FloatArray:
        """Return the rounding of sums of terms of total size ``scale`` that went through ``depth`` operators.

        The constant is an estimate with a margin, not a worst case: relative errors of independent signs add up like
        the terms themselves (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis").
        """
        return np.asarray(MARGIN * _EPS * (depth + 2) * scale)

    def of_loss(self, theta: FloatArray) -> float:
        """Return the standard deviation of what rounding the products of weights and inputs makes of the loss.

        A derivative's rounding is that of the sum of its terms' sizes; times its weight, it is what rounding the
        products with that weight makes of J. They are independent, and add up as squares.
        """
        parts = pieces(0, len(theta))
        return math.hypot(*(float(np.linalg.norm(theta[part] * self.noise[part])) for part in parts)) / MARGIN

    def settle(self, at: IntArray, right: FloatArray, left: FloatArray, crossed: NDArray[np.bool_]) -> None:
        """Write coordinates measured to both sides with a step so small that only a kink at theta can part them.

        All arrays are of shape (m,); `crossed` says whether the first step had passed a kink.
        """
        value = (right + left) / 2
        apart = np.abs(right - left) > 1e-9 * (np.abs(right) + np.abs(left)) + 64 * self.noise[at]
        self.value[at] = value
        self.status[at] = np.where(apart, Status.KINK, np.where(crossed, Status.CROSSED, Status.SMOOTH))
        self._parted.append((at, np.where(apart, right, np.nan), np.where(apart, left, np.nan)))

    def penalise(self, at: slice, w: FloatArray, l2: float, l1: float, h: float) -> None:
        """Add the central difference of l2/2 w^2 + l1 |w| for one block, w flat.

        (l2/2)((w + h)^2 - (w - h)^2) / 2h is l2 w for every h. |w| has a kink at 0.
        """
        slope = l2 * w + l1 * np.sign(w)
        self.value[at] += slope
        self.noise[at] += _EPS * np.abs(slope)
        if not l1 and not self._parted:
            return
        right, left = (side[at] for side in self.sides)
        if l1:
            zero, near = w == 0, (w != 0) & (np.abs(w) < h)
            one_sided = np.isfinite(right)
            right[:] = np.where(zero | one_sided, np.where(one_sided, right, self.value[at]), np.nan)
            left[:] = np.where(zero | one_sided, np.where(one_sided, left, self.value[at]), np.nan)
            right += np.where(zero, l1, slope)
            left += np.where(zero, -l1, slope)
            smooth = self.status[at] == Status.SMOOTH
            self.status[at] = np.where(zero, Status.KINK, np.where(near & smooth, Status.CROSSED, self.status[at]))
        else:
            right += slope
            left += slope

    def measured(self, coordinates: IntArray, at: IntArray | slice, truncation: float, rounded: float) -> Measured:
        """Return the measurements of some coordinates, or of all; ``truncation`` is relative to their rounding."""
        noise, none = self.noise[at], np.broadcast_to(np.nan, len(coordinates))  # that costs no memory
        parted = bool(self._parted) or "sides" in vars(self)
        right, left = (side[at] for side in self.sides) if parted else (none, none)
        told = coordinates, self.value[at], noise, truncation * noise, left, right, self.status[at]
        return Measured(*told, rounded)
