"""Which single coordinate may be wrong, by the residuals of a few directions, before anything else is evaluated.

The directions are known and can be drawn again. A single wrong coordinate j gives residuals e_j v_ij: the vector of
residuals points along column j of the directions, and with a signal-to-noise ratio s and k directions only about
P / s^(k-1) of P columns point that way. One pass over the directions tries all of them and costs no evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.judge.bounds import chi_square_above
from fastcheck.measure.directions import CHUNK
from fastcheck.measure.probes import Probe, Probing
from fastcheck.measure.regions import Region

__all__ = ["Candidate", "Residuals", "candidates"]

CHANCE = 1e-6  # that noise alone makes a true hypothesis fail
BARELY = 3.0  # uncertainties that what two measurements left may reach
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

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> Residuals:
        """Return those of some directions."""
        value, uncertainty = (np.array([getattr(p, key) for p in probes]) for key in ("residual", "uncertainty"))
        return cls(tuple(p.number for p in probes), value, uncertainty)

    def less(self, explained: FloatArray, uncertainty: FloatArray | float = 0.0) -> Residuals:
        """Return what is left when a part is explained."""
        return Residuals(self.numbers, self.value - explained, self.uncertainty + uncertainty)

    @property
    def within_noise(self) -> bool:
        """Whether none stands out."""
        return bool(np.all(np.abs(self.value) <= self.uncertainty))

    @property
    def barely_clear(self) -> bool:
        """Whether one stands out, but so little that it may be what two measurements left."""
        return 1 < float(np.max(np.abs(self.value) / self.uncertainty)) < BARELY

    def clearest(self, count: int) -> Residuals:
        """Keep the directions whose residuals stand out most."""
        order = np.sort(np.argsort(-np.abs(self.value) / self.uncertainty, kind="stable")[:count])
        return Residuals(tuple(self.numbers[k] for k in order), self.value[order], self.uncertainty[order])

    def misfit(self, shape: FloatArray, spread: float) -> tuple[FloatArray, FloatArray]:
        """Fit ``value = c * shape`` for n hypotheses, shape (k, n).

        Returns c, and the sum of squares left, both of shape (n,), in units of the variance: chi-square of k - 1
        degrees where the hypothesis is true. Uncertainties are `spread` standard deviations.
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
class Candidate:
    """A coordinate that alone may explain the residuals: its place in theta, its error, its misfit."""

    place: int
    error: float
    misfit: float


def candidates(plan: Probing, region: Region, seen: Residuals, lead: int = KEPT) -> list[Candidate]:
    """Return the coordinates of a region each of which could explain all residuals alone, best first; at most `lead`.

    The residuals are along at least two directions.
    """
    best: list[Candidate] = []
    for places, columns in _columns(plan, region, seen.numbers):
        error, misfit = seen.misfit(columns, plan.judge.z)
        fits = np.flatnonzero((misfit <= seen.tolerated) & (error != 0))
        if len(fits) > lead:
            fits = fits[np.argpartition(misfit[fits], lead)[:lead]]
        best += [Candidate(int(places[j]), float(error[j]), float(misfit[j])) for j in fits]
    return sorted(best, key=lambda one: one.misfit)[:lead]


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
