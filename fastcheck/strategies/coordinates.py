"""What is known of a block's coordinates one by one, and what they contribute to the residuals along directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastcheck.estimates import Estimate
from fastcheck.measure.probes import Probing
from fastcheck.measure.regions import Region
from fastcheck.measure.single import is_wrong, measured, quickly
from fastcheck.parameters import Block

__all__ = ["MeasuredCoordinates"]


class MeasuredCoordinates:
    """Coordinates of one block that were measured by their own differences.

    Parameters
    ----------
    plan : Probing
        The loss and the settings.
    number : int
        Of the block in the layout.
    block : Block
        The block.

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
