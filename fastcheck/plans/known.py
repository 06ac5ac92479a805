"""What is known of a block's coordinates one by one, and what they contribute to the residuals along directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastcheck.differences import Resolved
from fastcheck.parameters import Block
from fastcheck.plans.probing import Probing
from fastcheck.plans.regions import Region
from fastcheck.plans.single import is_wrong, measured, quickly

__all__ = ["Known"]


class Known:
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
    looked : dict of int to Resolved
        What was measured, by place in theta.
    """

    def __init__(self, plan: Probing, number: int, block: Block) -> None:
        self.plan, self.number, self.block = plan, number, block
        self.region = Region.whole(number, block)
        self.looked: dict[int, Resolved] = {}

    def look(self, places: Sequence[int]) -> list[bool]:
        """Measure coordinates that were not yet, and say which are wrong."""
        new = sorted(set(places) - set(self.looked))
        if new:
            self.looked |= measured(self.plan, self.number, new)
        return [self.is_wrong(place) for place in places]

    def is_wrong(self, place: int) -> bool:
        """Say whether a coordinate was measured and is wrong."""
        seen = self.looked.get(place)  # none: the run was stopped before
        return seen is not None and is_wrong(self.plan, place, seen)

    def looks_wrong(self, place: int) -> bool:
        """Measure a coordinate with few evaluations, and say whether it should be looked at."""
        return is_wrong(self.plan, place, quickly(self.plan, self.number, place))

    def error(self, place: int) -> float:
        """Return analytic minus measured."""
        return float(self.plan.analytic.flat[place]) - self.looked[place].value

    def factor(self, place: int) -> float:
        """Return c of e = c g."""
        g = float(self.plan.analytic.flat[place])
        return self.error(place) / g if g else math.inf

    def entry(self, number: int, place: int) -> float:
        """Return the entry of a direction at a coordinate."""
        row, column = divmod(place - self.block.start, self.region.width)
        alone = self.region.part(0, row, row + 1).part(1, column, column + 1)
        return float(self.plan.direction(alone, number)[1][0])

    def residual(self, region: Region, number: int) -> float:
        """Return what these coordinates contribute to the residual of a direction over a region."""
        inside = [place for place in self.looked if region.holds(place)]
        return math.fsum(self.error(place) * self.entry(number, place) for place in inside)
