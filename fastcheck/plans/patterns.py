"""What the residuals of a few directions say about where an error is, before anything else is evaluated.

The directions are known and can be drawn again. A single wrong coordinate j gives residuals e_j v_ij: the vector of
residuals points along column j of the directions, and with a signal-to-noise ratio s and k directions only about
P / s^(k-1) of P columns point that way. A row, a column or a whole block off by one factor c gives c (g.v) over those
coordinates alone. Each hypothesis is one pass over the directions and costs no evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bounds import chi_square_above
from fastcheck.directions import CHUNK
from fastcheck.plans.probing import Probing
from fastcheck.plans.regions import Region

__all__ = ["Clue", "Residuals", "Slice", "candidates", "scaled_block", "scaled_slices", "transposed"]

CHANCE = 1e-6  # that noise alone makes a true hypothesis fail
LITTLE = 0.03  # share of residuals that kinks may have added without their uncertainty knowing
KEPT = 24  # candidates kept of a region


@dataclass(frozen=True)
class Residuals:
    """Residuals along some directions over one region.

    Attributes
    ----------
    numbers : tuple of int
        Of the directions.
    value : float64, shape (k,)
        Analytic minus measured.
    uncertainty : float64, shape (k,)
        Their noise is at most this, over the whole run.
    """

    numbers: tuple[int, ...]
    value: FloatArray
    uncertainty: FloatArray

    def less(self, explained: FloatArray, uncertainty: FloatArray | float = 0.0) -> Residuals:
        """Return what is left when a part is explained."""
        return Residuals(self.numbers, self.value - explained, self.uncertainty + uncertainty)

    @property
    def silent(self) -> bool:
        """Whether none stands out."""
        return bool(np.all(np.abs(self.value) <= self.uncertainty))

    def misfit(self, shape: FloatArray, spread: float) -> tuple[FloatArray, FloatArray]:
        """Fit ``value = c * shape``.

        Parameters
        ----------
        shape : float64, shape (k, n)
            n hypotheses.
        spread : float
            Uncertainties are this many standard deviations.

        Returns
        -------
        tuple of two float64 arrays, shape (n,)
            c, and the sum of squares left, in units of the variance: chi-square of k - 1 degrees where it is true.
        """
        weight = (spread / self.uncertainty) ** 2
        norms = weight @ shape**2
        projected = (weight * self.value) @ shape
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.where(norms > 0, projected / norms, 0.0)
        left = self.value[:, None] - factor * shape
        return factor, weight @ left**2

    @property
    def tolerated(self) -> float:
        """Misfit that a true hypothesis stays below."""
        return chi_square_above(CHANCE, max(1, len(self.numbers) - 1))


@dataclass(frozen=True)
class Clue:
    """A coordinate that alone may explain the residuals: its place in theta, its error, its misfit."""

    place: int
    error: float
    misfit: float


@dataclass(frozen=True)
class Slice:
    """Places ``index`` along an axis of a block, all of whose entries are off by one factor: e = c g."""

    axis: int
    index: int
    factor: float
    misfit: float
    explained: FloatArray


def _spread(plan: Probing) -> float:
    return plan.judge.z


def candidates(plan: Probing, region: Region, seen: Residuals, lead: int = KEPT) -> list[Clue]:
    """Return the coordinates of a region each of which could explain all residuals alone, best first.

    Parameters
    ----------
    plan : Probing
        The seed of the directions.
    region : Region
        Where to look.
    seen : Residuals
        Along at least two directions.
    lead : int
        At most so many.
    """
    best: list[Clue] = []
    for places, columns in _columns(plan, region, seen.numbers):
        error, misfit = seen.misfit(columns, _spread(plan))
        fits = np.flatnonzero((misfit <= seen.tolerated) & (error != 0))
        if len(fits) > lead:
            fits = fits[np.argpartition(misfit[fits], lead)[:lead]]
        best += [Clue(int(places[j]), float(error[j]), float(misfit[j])) for j in fits]
    return sorted(best, key=lambda clue: clue.misfit)[:lead]


def _columns(plan: Probing, region: Region, numbers: Sequence[int]) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield places in theta and the directions' values there, shape (k, n), some rows of the region at a time."""
    rows = max(1, CHUNK // max(1, region.width))
    for top in range(region.rows[0], region.rows[1], rows):
        part = region.part(0, top, min(top + rows, region.rows[1]))
        low, high = part.span
        start = part.block.start + low
        drawn = np.stack([plan.direction(part, number)[1] for number in numbers])
        inside = part.inside()
        places = np.arange(start, start + high - low, dtype=np.int64)
        yield (places, drawn) if inside is None else (places[inside], drawn[:, inside])


def scaled_block(plan: Probing, region: Region, seen: Residuals) -> float | None:
    """Return c if e = c g over the whole region explains the residuals, or all but a little of them; else None."""
    expected = np.array([_expected(plan, region, number).sum() for number in seen.numbers])
    if len(expected) < 2:
        return None
    factor, misfit = seen.misfit(expected[:, None], _spread(plan))
    left = seen.value - factor[0] * expected
    nearly = len(expected) > 2 and float(left @ left) <= LITTLE**2 * float(seen.value @ seen.value)
    return float(factor[0]) if misfit[0] <= seen.tolerated or nearly else None


def scaled_slices(plan: Probing, region: Region, seen: Residuals) -> list[Slice]:
    """Return the rows, columns or other slices of a block that alone, off by one factor, explain the residuals."""
    block = region.block
    axes = [axis for axis, length in enumerate(block.shape) if 1 < length < block.size]
    if not axes or len(seen.numbers) < 2:
        return []
    sums: dict[int, list[FloatArray]] = {axis: [] for axis in axes}
    for number in seen.numbers:
        product = _expected(plan, region, number).reshape(block.shape, order=block.order)  # type: ignore[call-overload]
        for axis in axes:
            others = tuple(other for other in range(len(block.shape)) if other != axis)
            sums[axis].append(product.sum(axis=others))
    found = []
    for axis in axes:
        shape = np.stack(sums[axis])
        factor, misfit = seen.misfit(shape, _spread(plan))
        for index in np.flatnonzero((misfit <= seen.tolerated) & (factor != 0)).tolist():
            explained = factor[index] * shape[:, index]
            found.append(Slice(axis, index, float(factor[index]), float(misfit[index]), explained))
    return sorted(found, key=lambda one: one.misfit)


def transposed(plan: Probing, region: Region, seen: Residuals) -> bool:
    """Say whether the true gradient is the transpose of the analytic one (a square matrix)."""
    block = region.block
    if len(block.shape) != 2 or block.shape[0] != block.shape[1] or block.shape[0] < 2:
        return False
    g = plan.analytic.flat[block.slice].reshape(block.shape)
    left = []
    for number in seen.numbers:
        direction = plan.direction(region, number)[1].reshape(block.shape)
        left.append(float(np.vdot(g, direction)) - float(np.vdot(g.T, direction)))
    misfit = float((((seen.value - np.array(left)) * _spread(plan) / seen.uncertainty) ** 2).sum())
    return misfit <= chi_square_above(CHANCE, len(left))


def _expected(plan: Probing, region: Region, number: int) -> FloatArray:
    """Return g_j v_j over the span of a region, in the direction's own memory."""
    start, product = plan.direction(region, number)
    product *= plan.analytic.flat[start : start + len(product)]
    return product
