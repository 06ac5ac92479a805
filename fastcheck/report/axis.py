"""The log axis on which all blocks stand, with the limits of the grades."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fastcheck import thresholds
from fastcheck.report.report import BlockReport, Report
from fastcheck.settings import Settings

__all__ = ["FLOOR", "GradeAxis", "power", "tolerance_of"]

LOWEST, FLOOR = 1e-17, 1e-7


@dataclass(frozen=True)
class GradeAxis:
    """A log axis from `low` to 1 with the grades of the textbook, `width` units of the drawing long.

    What is smaller than `low` stands at the left end.
    """

    low: float
    tolerance: float
    width: float = 220.0

    @classmethod
    def of(cls, blocks: Iterable[BlockReport], tolerance: float) -> GradeAxis:
        """Return the axis that holds all that is known of the blocks."""
        seen = [v for b in blocks for v in (b.difference, b.uncertainty) if v > 0 and math.isfinite(v)]
        smallest = max(LOWEST, min([*seen, tolerance / 10, FLOOR]))
        return cls(10.0 ** math.floor(math.log10(smallest)), tolerance)

    def at(self, value: float) -> float | None:
        """Return the place of a value, at an end of the axis if it lies beyond; None where it is unknown."""
        if math.isnan(value):
            return None
        share = math.log10(min(max(value, self.low), 1.0) / self.low) / -math.log10(self.low)
        return round(self.width * share, 2)

    @property
    def limits(self) -> tuple[float, ...]:
        """The limits between the grades: correct, acceptable with kinks, suspicious, wrong."""
        return tuple(sorted({self.tolerance, thresholds.SUSPICIOUS, thresholds.WRONG}))

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Places and texts of the labels, none too near another."""
        placed: list[tuple[float, str]] = []
        for value in (1.0, self.tolerance, thresholds.SUSPICIOUS, thresholds.WRONG, self.low):
            place = self.at(value)
            if place is not None and all(abs(place - other) > 30 for other, _ in placed):
                placed.append((place, power(value)))
        return placed


def tolerance_of(report: Report) -> float:
    """Return the tolerance of the run, or the usual one where a report does not say."""
    value = report.settings.get("tolerance")
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else Settings().tolerance


def power(value: float) -> str:
    """Return ``"1e-7"``, ``"2.5e-4"``, ``"1"``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if int(exponent) else mantissa.removesuffix(".0")
