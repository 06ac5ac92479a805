"""Several checks of losses <u, f> as one run: they share a budget and a confidence."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.checks import check
from fastcheck.errors import InputError
from fastcheck.findings import Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.report import Report
from fastcheck.settings import Settings

__all__ = ["Checked", "Checks", "Cotangent", "positive"]

SHORTEST = 1e-3  # seconds that a check is given when the budget is used up: it will say that it stopped
HARMLESS = (Kind.UNCHECKED, Kind.NOISY_LOSS, Kind.KINKS, Kind.BELOW_TOLERANCE)


@dataclass(frozen=True)
class Cotangent:
    """A cotangent u: what the outputs are weighed by in the loss <u, f>.

    Attributes
    ----------
    name : str
        What it weighs: ``"all outputs"``, or the output that it picks.
    weights : float64, shape (m,)
        u.
    single : bool
        Whether it picks one output or one entry of it; there are others, at random, that weigh everything.
    """

    name: str
    weights: FloatArray
    single: bool


@dataclass(frozen=True)
class Checked(Cotangent):
    """A cotangent, and what came of its check.

    Attributes
    ----------
    report : Report
    claimed_norm : float
        Norm of the claimed product.
    """

    report: Report
    claimed_norm: float

    @property
    def failed(self) -> bool:
        """Whether the claim was refuted."""
        return self.report.verdict.refuted

    @property
    def undecided(self) -> bool:
        """Whether the verdict is inconclusive."""
        return self.report.verdict is Verdict.INCONCLUSIVE

    @property
    def harmless(self) -> bool:
        """Whether nothing was found that speaks against the function itself."""
        return all(finding.kind in HARMLESS for finding in self.report.findings)

    @property
    def derivative(self) -> float:
        """How large the derivative is at most, as far as the claim and what its uncertainty may hide tell."""
        hidden = 2 * self.claimed_norm * self.report.uncertainty  # which is relative to ||g|| + ||n||
        return min(self.claimed_norm, hidden)


@dataclass
class Checks:
    """Runs `fastcheck.check` several times, within the budget and the confidence of one run.

    Parameters
    ----------
    name : str
        The public function, for messages.
    options : mapping
        As for `fastcheck.check`.
    count : int
        Checks that are planned; their false alarms add up.

    Raises
    ------
    InputError
        An option breaks its rule.
    """

    name: str
    options: Mapping[str, Any]
    count: int = 1
    evaluations: int = 0
    settings: Settings = field(init=False)
    _started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        known = [f.name for f in dataclasses.fields(Settings)]
        for name in self.options:
            if name not in known:
                raise InputError(f"{self.name} has no option {name!r}; it has args, throw and {', '.join(known)}.")
        self.settings = Settings(**self.options)
        if self.settings.checkpoint is not None:
            raise InputError(
                f"checkpoint={self.settings.checkpoint!r}: {self.name} is several short checks; give it a budget= "
                "instead."
            )
        if "replay" in self.options:
            raise InputError(
                f"replay={self.settings.replay}: {self.name} compares several calls of a product, which each draw "
                "anew. Fix the seed inside the function, and inside the product."
            )

    @property
    def seconds(self) -> float:
        """Seconds since the first was planned."""
        return time.perf_counter() - self._started

    def __call__(
        self, left: int, loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], **over: Any
    ) -> Report:
        """Run one check of those that are left, with its share of the time that is left."""
        # A single product may well be zero in a block; the table in `merge` says what passes when all are done
        options = {**self.options, "unchecked": "allow", "replay": False, **over}
        options["confidence"] = 1 - (1 - self.settings.confidence) / max(1, self.count)
        if self.settings.budget is not None:
            options["budget"] = max(SHORTEST, (self.settings.budget - self.seconds) / max(1, left))
        report = check(loss, gradient, params, args=args, **options)
        self.evaluations += report.evaluations
        return report


def positive(name: str, value: int | None) -> int | None:
    """Return a number of vectors, validated.

    Raises
    ------
    InputError
        It is neither None nor a positive integer.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}={value!r} must be a positive integer, or None for as many as the sizes ask for.")
    return int(value)
