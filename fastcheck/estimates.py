"""Difference schemes as data, and what a measured derivative is.

A scheme is a grid of offsets and their coefficients: the derivative of J along coordinate i is approximated by
``sum_k coefficients[k] * J(theta + offsets[k] * h * e_i) / h``. The arithmetic stands here once, for every scheme.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.parameters import Block

__all__ = ["SCHEMES", "TINY", "UNRESOLVED", "Estimate", "Estimates", "Measured", "Scheme", "Status", "kinks_coincide"]

TINY = float(np.finfo(np.float32).tiny)  # no derivative smaller than this is judged


@dataclass(frozen=True)
class Scheme:
    """A finite difference scheme for the first derivative.

    Attributes
    ----------
    name : str
        The user's word for it.
    offsets, coefficients : tuple of float
        The grid in units of the step, and the weights; the weights sum to zero.
    order : int
        Power of the step in the truncation error.
    subtracts : bool
        Whether nearly equal losses are subtracted, so that their noise over the step is the rounding.
    """

    name: str
    offsets: tuple[float, ...]
    coefficients: tuple[float, ...]
    order: int
    subtracts: bool = True

    def derivative(self, values: FloatArray, steps: FloatArray) -> FloatArray:
        """Combine the losses of each grid, shape (m, len(offsets)), and its step, shape (m,), into derivatives."""
        # The largest weights first would cancel badly: pair the points that mirror each other, as (J+ - J-)/(2h) does.
        total = np.zeros(len(values))
        for k, j in self._mirrored:
            total += self.coefficients[k] * (values[:, k] - values[:, j])
        return np.asarray(total / steps)

    @cached_property
    def _mirrored(self) -> list[tuple[int, int]]:
        """Return pairs (k, j) with opposite weights; every scheme here is made of such pairs."""
        pairs, left = [], list(range(len(self.offsets)))
        while left:
            k = left.pop(0)
            j = next(i for i in left if self.coefficients[i] == -self.coefficients[k])
            left.remove(j)
            pairs.append((k, j))
        return pairs

    @cached_property
    def amplification(self) -> float:
        """Sum of |coefficients|: worst-case factor from one loss's error, over the step, to the derivative's."""
        return float(np.abs(self.coefficients).sum())


# Fornberg (1988), "Generation of finite difference formulas on arbitrarily spaced grids", table 1 and 2; the four-point
# formula is one Richardson extrapolation of the central difference. The complex step takes Im J(theta +- i h) for the
# values: Squire, Trapp (1998), "Using complex variables to estimate derivatives of real functions", SIAM Rev. 40.
SCHEMES: dict[str, Scheme] = {
    "central": Scheme("central", (1.0, -1.0), (0.5, -0.5), 2),
    "forward": Scheme("forward", (1.0, 0.0), (1.0, -1.0), 1),
    "richardson": Scheme("richardson", (1.0, -1.0, 2.0, -2.0), (8 / 12, -8 / 12, -1 / 12, 1 / 12), 4),
    "complex": Scheme("complex", (1.0, -1.0), (0.5, -0.5), 2, subtracts=False),
}


class Status(enum.IntEnum):
    """What stands at a coordinate."""

    SMOOTH = 0
    """One derivative; its uncertainty is rounding plus truncation."""
    CROSSED = 1
    """The first step crossed a kink; a smaller one did not, and gave the value."""
    KINK = 2
    """A kink at theta itself: the two one-sided slopes differ, and any value between them is a subgradient."""
    JUMP = 3
    """The loss is discontinuous here: a difference quotient has no limit."""
    UNRESOLVED = 4
    """No step gave an answer: the noise, or kinks at every scale, hide the derivative."""


@dataclass(frozen=True)
class Measured:
    """Measured derivatives of some coordinates of theta, as a structure of arrays of one length m.

    Attributes
    ----------
    coordinates : int64, shape (m,)
        Places in theta.
    value : float64, shape (m,)
        The measured derivatives, in units of the loss over units of the parameter; NaN where the loss failed.
    rounding, truncation : float64, shape (m,)
        The two pieces of the uncertainty: |value - derivative| <= rounding + truncation at the run's confidence.
    left, right : float64, shape (m,)
        One-sided slopes where they were measured apart, else NaN.
    status : uint8, shape (m,)
        A `Status`.
    noise : float
        What rounding its terms makes of the loss itself, as one standard deviation, where all of theta was measured.
    """

    coordinates: NDArray[np.int64]
    value: FloatArray
    rounding: FloatArray
    truncation: FloatArray
    left: FloatArray = field(repr=False)
    right: FloatArray = field(repr=False)
    status: NDArray[np.uint8]
    noise: float = math.nan

    @classmethod
    def smooth(
        cls, coordinates: NDArray[np.int64], value: FloatArray, rounding: FloatArray, truncation: FloatArray
    ) -> Measured:
        """Return measurements at which no kink was looked at."""
        nan = np.full(len(value), np.nan)
        return cls(coordinates, value, rounding, truncation, nan, nan.copy(), np.zeros(len(value), np.uint8))

    @property
    def uncertainty(self) -> FloatArray:
        """Rounding plus truncation, shape (m,)."""
        return self.rounding + self.truncation

    def __len__(self) -> int:
        return len(self.coordinates)


@dataclass(frozen=True)
class Estimate:
    """One derivative after a second look: its value, its uncertainty pieces, one-sided slopes and a status."""

    value: float
    rounding: float
    truncation: float
    left: float
    right: float
    status: Status

    @classmethod
    def of(cls, measured: Measured, row: int) -> Estimate:
        """Return one row of a structure of arrays."""
        names = ("value", "rounding", "truncation", "left", "right")
        numbers = {name: float(getattr(measured, name)[row]) for name in names}
        return cls(**numbers, status=Status(int(measured.status[row])))

    @property
    def uncertainty(self) -> float:
        """Rounding plus truncation."""
        return self.rounding + self.truncation

    @property
    def interval(self) -> tuple[float, float]:
        """Derivatives that are right here: at a kink every subgradient, elsewhere the value alone."""
        if self.status is Status.KINK:
            return min(self.left, self.right), max(self.left, self.right)
        return self.value, self.value

    @property
    def width(self) -> float:
        """Width of the interval: how far apart the slopes at a kink are."""
        low, high = self.interval
        return high - low

    def excuses(self, claimed: float) -> bool:
        """Say whether a claimed derivative is no proof of a mistake: see `kinks_coincide`."""
        low, high = self.interval
        outside = max(low - claimed, claimed - high) > self.uncertainty
        return self.status is Status.KINK and outside and kinks_coincide(claimed, low, high)


UNRESOLVED = Estimate(math.nan, math.inf, 0.0, math.nan, math.nan, Status.UNRESOLVED)


def kinks_coincide(claimed: float, left: float, right: float) -> bool:
    """Say whether a right backward pass may claim a derivative outside of the slopes to both sides of a kink.

    Where weights and biases are zero, a relu is at its kink for every sample at once. Moving a weight bends it for
    some samples on the one side and for the others on the other, so that the slopes are sums A and B over some of the
    samples each; but backpropagation takes all of them, A + B, or none, 0, and neither need lie between A and B.
    """
    ends = 0.0, left, right, left + right
    margin = thresholds.SLOPE_MARGIN * (abs(left) + abs(right))
    return min(ends) - margin <= claimed <= max(ends) + margin


@dataclass
class Estimates:
    """The measured derivatives of one block, as the strategies fill them in.

    Attributes
    ----------
    block : Block
        The block.
    coordinates : int64, shape (m,), or None
        Places in theta, rising; None stands for the whole block, so that no index vector is kept.
    value : float64, shape (m,)
        Measured derivatives; NaN where none could be measured (yet).
    rounding, truncation : float32, shape (m,)
        Pieces of the uncertainty; an uncertainty needs no more digits.
    looks : dict of int to Estimate
        What the second look found, by place in theta.
    error_floor : float
        Norm that the gradient's error has at least, by measurements along directions of the block.
    systematic : float
        Norm of an error that the single measurements showed together, but a measurement along it did not.
    forgiven : float
        Squared norm of what was added to truncations because a second look was too uncertain to bear an error out.
    cleared : bool
        A measurement along the error that the single measurements showed together found that it is none.
    compared : (Judge, Comparison) or None
        What a judge made of it, where nothing was measured since.
    """

    block: Block
    coordinates: NDArray[np.int64] | None
    value: FloatArray
    rounding: NDArray[np.float32]
    truncation: NDArray[np.float32]
    looks: dict[int, Estimate] = field(default_factory=dict)
    error_floor: float = 0.0
    systematic: float = 0.0
    forgiven: float = 0.0
    cleared: bool = False
    compared: tuple[Any, Any] | None = field(default=None, repr=False)

    @classmethod
    def empty(
        cls, block: Block, coordinates: NDArray[np.int64] | None = None, numerical: FloatArray | None = None
    ) -> Estimates:
        """Return a block of which nothing is measured yet; a whole block's values can live in a vector like theta."""
        m = block.size if coordinates is None else len(coordinates)
        value = np.full(m, np.nan) if coordinates is not None or numerical is None else numerical[block.slice]
        return cls(block, coordinates, value, np.zeros(m, np.float32), np.zeros(m, np.float32))

    @classmethod
    def of_measured(cls, block: Block, measured: Measured) -> Estimates:
        """Return the part of dense measurements, whose coordinates rise, that lies in a block.

        Their rounding goes with the truncation, as a bound: the coordinates of a unit share its sums, so their errors
        are not independent and don't average out in a norm.
        """
        first, stop = np.searchsorted(measured.coordinates, (block.start, block.stop)).tolist()
        inside = slice(first, stop)
        new = cls(
            block,
            None if stop - first == block.size else measured.coordinates[inside],
            measured.value[inside],
            np.zeros(stop - first, np.float32),
            np.add(measured.rounding[inside], measured.truncation[inside], dtype=np.float32, casting="same_kind"),
        )
        for row in (first + np.flatnonzero(measured.status[inside] != Status.SMOOTH)).tolist():
            new.looks[int(measured.coordinates[row])] = Estimate.of(measured, row)
        return new

    def __len__(self) -> int:
        return len(self.value)

    def places(self, rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Return the places in theta of some rows."""
        if self.coordinates is not None:
            return self.coordinates[rows]
        if isinstance(rows, slice):
            first, stop, stride = rows.indices(len(self))
            return np.arange(self.block.start + first, self.block.start + stop, stride, dtype=np.int64)
        return self.block.start + rows

    def place(self, row: int) -> int:
        """Return the place in theta of a row."""
        return self.block.start + row if self.coordinates is None else int(self.coordinates[row])

    def row(self, place: int) -> int:
        """Return the row of a place in theta."""
        if self.coordinates is None:
            return place - self.block.start
        return int(np.searchsorted(self.coordinates, place))

    def put(self, place: int, resolved: Estimate) -> None:
        """Replace a measurement by what a second look found."""
        row = self.row(place)
        self.compared = None
        self.looks[place] = resolved
        self.value[row] = resolved.value
        self.rounding[row] = max(resolved.rounding, TINY)
        self.truncation[row] = resolved.truncation
