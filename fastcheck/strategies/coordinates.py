"""Single coordinates of a block: measured quickly, or down the ladder; and which of them may be wrong.

The residuals of a few directions tell that before anything else is evaluated: the directions are known and can be drawn
again. A single wrong coordinate j gives residuals e_j v_ij: the vector of residuals points along column j of the
directions, and with a signal-to-noise ratio s and k directions only about P / s^(k-1) of P columns point that way. One
pass over the directions tries all of them and costs no evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Estimate, Status
from fastcheck.judge.bounds import chi_square_above
from fastcheck.judge.directions import BlockProbes
from fastcheck.measure.directions import CHUNK
from fastcheck.measure.looks import LADDER, look_again
from fastcheck.measure.probes import LOUD, Probe, Probing
from fastcheck.measure.regions import Region

__all__ = ["Candidate", "MeasuredCoordinates", "Residuals", "candidates", "is_wrong", "measured", "quickly"]

STEPS = (2.0**-10, 2.0**-13)  # of a quick measurement, in units of the parameters


def quickly(plan: Probing, number: int, place: int) -> Estimate:
    """Measure one coordinate of a block with two steps; 4 evaluations, and good enough to say whether to look again.

    Unresolved where the one-sided slopes do not close up, or the parameter itself is smaller than the steps.
    """
    steps = float(_scales(plan, number, np.array([place]))[0]) * np.array(STEPS)
    ahead, behind, plus, minus = _losses(plan, place, steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        long, short = ((plus - minus) / (ahead + behind)).tolist()
        wide, narrow = np.abs(plus + minus - 2 * plan.base) / (ahead + behind)
    rounding = plan.uncertainty(float(steps[-1]))
    closes = narrow <= wide * thresholds.OPENS * steps[1] / steps[0] + rounding
    status = Status.SMOOTH if closes and abs(plan.evaluator.theta[place]) >= steps[0] else Status.UNRESOLVED
    return Estimate(short, rounding, abs(long - short), np.nan, np.nan, status)


def _losses(plan: Probing, place: int, steps: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the achieved steps of a coordinate ahead and behind, and the losses there; the run keeps them."""
    at = np.full(len(steps), place, dtype=np.int64)
    values = np.full((len(steps), 2), np.nan)  # where the run is stopped before
    for rows, losses in plan.run.grid(plan.evaluator, at, steps, (1.0, -1.0)):
        values[rows] = losses
    theta = plan.evaluator.theta[at]
    ahead = plan.evaluator.represent(at, theta + steps) - theta
    behind = theta - plan.evaluator.represent(at, theta - steps)
    ladder = ahead, behind, values[:, 0], values[:, 1]
    plan.run.keep(plan.evaluator, place, ladder)
    return ladder


def measured(plan: Probing, number: int, places: Sequence[int], reach: float = math.inf) -> dict[int, Estimate]:
    """Measure coordinates of a block down the ladder of steps, to what served directions over it; 16 evaluations each.

    What is large because it is counted from afar (a time, a coordinate on the globe) tells nothing of how short the
    steps must be; the directions, whose steps are as short as they can be, do.
    """
    at = np.array(sorted(set(places)), dtype=np.int64)
    steps = _scales(plan, number, at) / LADDER[0]  # the ladder then begins at the size of the parameters
    seen = look_again(plan.run, plan.evaluator, plan.base, at, steps, plan.noise.error(plan.judge.z), reach=reach)
    return dict(zip(at.tolist(), seen, strict=False))  # the run may have been stopped


def _scales(plan: Probing, number: int, places: IntArray) -> FloatArray:
    """Return the size of each coordinate's parameter: that of its block, or its own where they differ too much."""
    if number in plan.uneven:
        return plan.sizes(number, places)
    return np.full(len(places), plan.scales[number])


def is_wrong(plan: Probing, place: int, resolved: Estimate) -> bool:
    """Say whether the analytic derivative of a measured coordinate is suspicious or wrong."""
    return plan.judge.refutes(resolved, float(plan.analytic.flat[place]))


class MeasuredCoordinates:
    """Coordinates of one block that were measured by their own differences.

    Attributes
    ----------
    measured : dict of int to Estimate
        What was measured down the ladder of steps, by place in theta.
    quick : dict of int to Estimate
        What was measured with two steps.
    """

    def __init__(self, plan: Probing, one: BlockProbes) -> None:
        self.plan, self.number, self.block, self.reach = plan, one.number, one.block, one.shortest
        self.region = Region.whole(one.number, one.block)
        self.measured: dict[int, Estimate] = {}
        self.quick: dict[int, Estimate] = {}

    @property
    def seen(self) -> dict[int, Estimate]:
        """All that was measured, as well as it was."""
        return self.quick | self.measured

    def look(self, places: Sequence[int]) -> list[bool]:
        """Measure coordinates that were not yet, and say which are wrong."""
        new = sorted(set(places) - set(self.measured))
        if new:
            self.measured |= measured(self.plan, self.number, new, self.reach)
        return [self.is_wrong(place) for place in places]

    def is_wrong(self, place: int) -> bool:
        """Say whether a coordinate was measured and is wrong."""
        seen = self.measured.get(place)  # none: the run was stopped before
        return seen is not None and is_wrong(self.plan, place, seen)

    def confirms(self, place: int) -> bool:
        """Measure a coordinate that looks wrong well, and say whether it is, and the quick look can be trusted."""
        wrong, quick = any(self.look([place])), self.quick.get(place)
        well = self.measured.get(place)
        if not wrong or quick is None or well is None:
            return wrong
        return abs(quick.value - well.value) <= quick.uncertainty + well.uncertainty

    def looks_wrong(self, place: int) -> bool:
        """Measure a coordinate with few evaluations, and say whether it should be looked at."""
        if place not in self.seen:
            self.quick[place] = quickly(self.plan, self.number, place)
        return self.is_wrong_as(place, self.seen[place])

    def clearly_wrong(self, place: int) -> Estimate | None:
        """Measure a coordinate with few evaluations, and return that where it is far off, as two steps agree."""
        looks, quick = self.looks_wrong(place), self.quick.get(place)
        if not looks or quick is None or quick.status is not Status.SMOOTH:
            return None
        return quick if abs(self.error(place, quick)) > LOUD * quick.uncertainty else None

    def bears_out(self, place: int, quick: Estimate) -> bool:
        """Say whether a step as short as those of the directions gives what two far longer ones did; 2 evaluations."""
        at = np.array([place])
        step = self.reach * (self.plan.sizes(self.number, at) if self.number in self.plan.uneven else np.ones(1))
        (ahead,), (behind,), (plus,), (minus,) = _losses(self.plan, place, step)
        noise = self.plan.uncertainty(float(step[0]))
        apart = abs((plus - minus) / (ahead + behind) - quick.value) if ahead + behind > 0 else math.inf
        return bool(apart <= noise + quick.uncertainty and abs(self.error(place, quick)) > LOUD * noise)

    def is_wrong_as(self, place: int, resolved: Estimate) -> bool:
        """Say whether a coordinate is wrong by a measurement of it."""
        return is_wrong(self.plan, place, resolved)

    def error(self, place: int, seen: Estimate) -> float:
        """Return analytic minus measured."""
        return float(self.plan.analytic.flat[place]) - seen.value

    def entry(self, number: int, place: int) -> float:
        """Return the entry of a direction at a coordinate."""
        row, column = divmod(place - self.block.start, self.region.width)
        alone = self.region.part(0, row, row + 1).part(1, column, column + 1)
        return float(self.plan.direction(alone, number)[1][0])

    def residual(self, region: Region, number: int) -> float:
        """Return what these coordinates contribute to the residual of a direction over a region."""
        inside = [(place, seen) for place, seen in self.measured.items() if region.holds(place)]
        return math.fsum(self.error(place, seen) * self.entry(number, place) for place, seen in inside)

    def left_by(self, place: int, estimate: Estimate, seen: Residuals) -> Residuals:
        """Return what the error of one coordinate leaves of some residuals."""
        entries = np.array([self.entry(number, place) for number in seen.numbers])
        return seen.less(self.error(place, estimate) * entries, np.abs(entries) * estimate.uncertainty)


# -- which may be wrong -----------------------------------------------------------------------------------------------


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


def candidates(plan: Probing, region: Region, seen: Residuals) -> list[Candidate]:
    """Return the coordinates of a region each of which could explain all residuals alone, best first; at most `KEPT`.

    The residuals are along at least two directions.
    """
    best: list[Candidate] = []
    for places, columns in _columns(plan, region, seen.numbers):
        error, misfit = seen.misfit(columns, plan.judge.z)
        fits = np.flatnonzero((misfit <= seen.tolerated) & (error != 0))
        if len(fits) > KEPT:
            fits = fits[np.argpartition(misfit[fits], KEPT)[:KEPT]]
        best += [Candidate(int(places[j]), float(error[j]), float(misfit[j])) for j in fits]
    return sorted(best, key=lambda one: one.misfit)[:KEPT]


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
