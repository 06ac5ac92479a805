"""Single coordinates of a block: measured quickly, or down the ladder, and what they contribute to residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Estimate, Status
from fastcheck.measure.ladder import LADDER, look_again
from fastcheck.measure.probes import Probing
from fastcheck.measure.regions import Region
from fastcheck.parameters import Block

__all__ = ["MeasuredCoordinates", "is_wrong", "measured", "quickly"]

STEPS = (2.0**-10, 2.0**-13)  # of a quick measurement, in units of the parameters


def quickly(plan: Probing, number: int, place: int) -> Estimate:
    """Measure one coordinate of a block with two steps; 4 evaluations, and good enough to say whether to look again."""
    steps = float(_scales(plan, number, np.array([place]))[0]) * np.array(STEPS)
    at = np.full(len(steps), place, dtype=np.int64)
    values = np.full((len(steps), 2), np.nan)  # where the run is stopped before
    for rows, losses in plan.run.grid(plan.evaluator, at, steps, (1.0, -1.0)):
        values[rows] = losses
    theta = plan.evaluator.theta[at]
    achieved = plan.evaluator.represent(at, theta + steps) - plan.evaluator.represent(at, theta - steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        long, short = ((values[:, 0] - values[:, 1]) / achieved).tolist()
    rounding = plan.uncertainty(float(steps[-1]))
    return Estimate(short, rounding, abs(long - short), np.nan, np.nan, Status.SMOOTH)


def measured(plan: Probing, number: int, places: Sequence[int]) -> dict[int, Estimate]:
    """Measure coordinates of a block down the ladder of steps; 16 evaluations each."""
    at = np.array(sorted(set(places)), dtype=np.int64)
    steps = _scales(plan, number, at) / LADDER[0]  # the ladder then begins at the size of the parameters
    seen = look_again(plan.run, plan.evaluator, plan.base, at, steps, plan.noise.error(plan.judge.z))
    return dict(zip(at.tolist(), seen, strict=False))  # the run may have been stopped


def _scales(plan: Probing, number: int, places: IntArray) -> FloatArray:
    """Return the size of each coordinate's parameter: that of its block, or its own where they differ too much."""
    if number in plan.uneven:
        return plan.sizes(number, plan.evaluator.theta[places])
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

    def __init__(self, plan: Probing, number: int, block: Block) -> None:
        self.plan, self.number, self.block = plan, number, block
        self.region = Region.whole(number, block)
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
            self.measured |= measured(self.plan, self.number, new)
        return [self.is_wrong(place) for place in places]

    def is_wrong(self, place: int) -> bool:
        """Say whether a coordinate was measured and is wrong."""
        seen = self.measured.get(place)  # none: the run was stopped before
        return seen is not None and is_wrong(self.plan, place, seen)

    def looks_wrong(self, place: int) -> bool:
        """Measure a coordinate with few evaluations, and say whether it should be looked at."""
        if place not in self.seen:
            self.quick[place] = quickly(self.plan, self.number, place)
        return self.is_wrong_as(place, self.seen[place])

    def is_wrong_as(self, place: int, resolved: Estimate) -> bool:
        """Say whether a coordinate is wrong by a measurement of it."""
        return is_wrong(self.plan, place, resolved)

    def error(self, place: int) -> float:
        """Return analytic minus measured."""
        return float(self.plan.analytic.flat[place]) - self.measured[place].value

    def entry(self, number: int, place: int) -> float:
        """Return the entry of a direction at a coordinate."""
        row, column = divmod(place - self.block.start, self.region.width)
        alone = self.region.part(0, row, row + 1).part(1, column, column + 1)
        return float(self.plan.direction(alone, number)[1][0])

    def residual(self, region: Region, number: int) -> float:
        """Return what these coordinates contribute to the residual of a direction over a region."""
        inside = [place for place in self.measured if region.holds(place)]
        return math.fsum(self.error(place) * self.entry(number, place) for place in inside)
