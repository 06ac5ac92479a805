"""Several checks as one: they share a budget and a confidence, and become one report."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.checks import check
from fastcheck.errors import InputError
from fastcheck.finding import Finding
from fastcheck.products.point import Told
from fastcheck.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings
from fastcheck.verdict import RESOLUTION, Verdict, worst

__all__ = ["Checked", "Checks", "merged"]

SHORTEST = 1e-3  # seconds that a check is given when the budget is used up: it will say that it stopped
LINEAR = (
    "independent",
)  # a product that does not depend on the inputs is no sign of a bug: the function may be linear
HARMLESS = ("unchecked", "noisy_loss", "kinks", "below_tolerance")


@dataclass(frozen=True)
class Checked:
    """The check of one cotangent.

    Attributes
    ----------
    name : str
        What the cotangent weighs: ``"all outputs"``, or the output that it picks.
    weights : float64, shape (m,)
        The cotangent.
    report : Report
        What came of it.
    alone : bool
        Whether it picks one output or one entry of it; there are others, at random, that weigh everything.
    claimed : float
        Norm of the claimed product.
    """

    name: str
    weights: FloatArray
    report: Report
    alone: bool
    claimed: float

    @property
    def failed(self) -> bool:
        """Whether the claim was refuted."""
        return self.report.verdict in (Verdict.WRONG, Verdict.SUSPICIOUS)

    @property
    def undecided(self) -> bool:
        """Whether the verdict is inconclusive."""
        return self.report.verdict is Verdict.INCONCLUSIVE

    def silent(self, heard: float) -> bool:
        """Say whether it picks an output that has no derivative to speak of, beside what all of them have.

        A relu that is off: nothing can be measured there, and nothing is claimed.
        """
        harmless = all(finding.kind in HARMLESS for finding in self.report.findings)
        return self.alone and self.undecided and harmless and self.claimed <= RESOLUTION * heard


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
        known = {f.name for f in dataclasses.fields(Settings)}
        for name in self.options:
            if name not in known:
                raise InputError(f"{self.name} has no option {name!r}; it has args, throw and {', '.join(known)}.")
        self.settings = Settings(**self.options)
        if self.settings.checkpoint is not None:
            raise InputError(
                f"checkpoint={self.settings.checkpoint!r}: {self.name} is several short checks; give it a budget= "
                "instead."
            )

    @property
    def seconds(self) -> float:
        """Seconds since the first was planned."""
        return time.perf_counter() - self._started

    def __call__(
        self, left: int, loss: Callable[..., Any], gradient: Any, params: Any, args: tuple[Any, ...], **over: Any
    ) -> Report:
        """Run one check of those that are left, with its share of the time that is left."""
        options = {**self.options, **over}
        options["confidence"] = 1 - (1 - self.settings.confidence) / max(1, self.count)
        if self.settings.budget is not None:
            options["budget"] = max(SHORTEST, (self.settings.budget - self.seconds) / max(1, left))
        report = check(loss, gradient, params, args=args, **options)
        self.evaluations += report.evaluations
        return report


def merged(checks: Checks, done: Sequence[Checked], told: Sequence[Told], settings: Mapping[str, Any]) -> Report:
    """Return one report of many checks of the same inputs: the worst of what was seen, block by block.

    Parameters
    ----------
    checks : Checks
        Which ran them.
    done : sequence of Checked
        What came of them; at least one weighs all outputs.
    told : sequence of Told
        What was found besides.
    settings : mapping
        What the report's settings hold besides.

    Notes
    -----
    A cotangent that picks an output which has no derivative can measure nothing. Those that weigh all outputs see an
    error there at half its strength or more, so it does not spoil a pass; it is named.
    """
    heard = max(one.claimed for one in done if not one.alone)
    audible = [one for one in done if not one.silent(heard)]
    exact = any(one.finding.evidence.get("others_agree") for one in told)
    judges = [one for one in audible if one.alone] if exact else [one for one in audible if not one.alone]
    worst_first = [*judges, *audible]  # of the same verdict the first decides
    leading = max(worst_first, key=lambda one: one.report.verdict.severity).report
    blocks = {name: _block([(one.alone, one.report.blocks[name]) for one in audible]) for name in leading.blocks}
    for one in told:
        for name in set(one.finding.evidence.get("blocks", ())) & set(blocks):
            blocks[name] = dataclasses.replace(blocks[name], verdict=worst([one.verdict, blocks[name].verdict]))
    return dataclasses.replace(
        leading,
        verdict=worst([leading.verdict, *(one.verdict for one in told)]),
        bound=float(np.max([one.report.bound for one in audible if not one.alone])),
        blocks=blocks,
        wrong=_wrong(judges) or _wrong(audible),
        findings=(*_findings(told, leading, audible), *_silent([one.name for one in done if one.silent(heard)])),
        coverage=min(one.report.coverage for one in audible),
        evaluations=checks.evaluations,
        seconds=checks.seconds,
        settings={**leading.settings, **checks.settings.as_dict(), **settings},
        numerical=None,
    )


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _block(seen: Sequence[tuple[bool, BlockReport]]) -> BlockReport:
    """Return the worst of a block, of (alone, report); it passes where all outputs were weighed, or not at all."""
    refuted = [block for _, block in seen if not block.verdict.passed and block.verdict is not Verdict.INCONCLUSIVE]
    told = refuted or [block for alone, block in seen if not alone]
    chosen = max(told, key=lambda block: (block.verdict.severity, _known(block.difference)))
    return dataclasses.replace(
        chosen,
        checked=min(block.checked for block in told),
        bound=float(np.max([block.bound for block in told])),
        wrong=max(block.wrong for block in told),
        kinks=max(block.kinks for _, block in seen),
    )


def _wrong(done: Sequence[Checked]) -> tuple[Coordinate, ...]:
    """Return every wrong coordinate once, worst first."""
    kept: dict[str, Coordinate] = {}
    for coordinate in (coordinate for one in done for coordinate in one.report.wrong):
        kept.setdefault(coordinate.name, coordinate)
    return tuple(sorted(kept.values(), key=_excess, reverse=True))


def _excess(c: Coordinate) -> float:
    return max(0.0, abs(c.analytic - c.numerical) - c.uncertainty) / (abs(c.analytic) + abs(c.numerical))


def _findings(told: Sequence[Told], leading: Report, done: Sequence[Checked]) -> tuple[Finding, ...]:
    """Return the findings about the product, then those of the check that decided, then other kinds of the rest.

    A diagnosis is that check's alone, and is left out where a finding explains the error.
    """
    explained = any(one.explains for one in told)
    findings = [one.finding for one in told]
    findings += [f for f in leading.findings if f.kind not in LINEAR and not (explained and "blocks" in f.evidence)]
    kinds = {(finding.kind, finding.block) for finding in findings}
    for finding in (finding for one in done for finding in one.report.findings):
        of_one = finding.kind == "unchecked" or "blocks" in finding.evidence
        if not of_one and (finding.kind, finding.block) not in kinds:
            kinds.add((finding.kind, finding.block))
            findings.append(finding)
    return tuple(findings)


def _silent(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield Finding(
            "silent_outputs",
            None,
            f"{shown}: next to no derivative, claimed or seen, when looked at alone (a relu that is off?). Weighed "
            "together with the others, an error there would have been seen.",
            {"outputs": list(names)},
        )
