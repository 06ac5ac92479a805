"""Several checks of losses <u, f>: run as one, within a budget and a confidence, and made one report.

Each check has a part in it, by the first rule of `RULES` that fits. Then, block by block and in the whole:

=========  ===============================================================  ==================================
field      taken from                                                       as
=========  ===============================================================  ==================================
verdict    all that count, and the findings about the product               the worst
wrong      the checks that lead, else all that count                        each coordinate once, worst first
bound      the checks that lead                                             the largest
coverage   all that count                                                   the smallest
findings   the product's, the worst check's, other kinds of the others      in this order
a block    refuted ones; else those of all outputs; else any that count     the worst
=========  ===============================================================  ==================================
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.checks import check
from fastcheck.errors import InputError
from fastcheck.findings import Finding, Kind, first_of
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.measure.directions import visible
from fastcheck.products.point import ProductFinding
from fastcheck.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings

__all__ = ["RULES", "Checked", "Checks", "Cotangent", "Part", "merged", "parts_of", "positive"]

SHORTEST = 1e-3  # seconds that a check is given when the budget is used up: it will say that it stopped
HARMLESS = (Kind.UNCHECKED, Kind.NOISY_LOSS, Kind.PIECEWISE_CONSTANT, Kind.KINKS, Kind.BELOW_TOLERANCE)


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
    """A cotangent, what came of its check, and the norm of the claimed product."""

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


# -- one report of many checks ----------------------------------------------------------------------------------------


UNSTEADY = (Kind.RANDOM_LOSS, Kind.STATEFUL_LOSS, Kind.COUNTING_LOSS, Kind.GRADIENT_CHANGES_LOSS)
"""Found of a function that is another one at each call. So is its product, which then only seems not to be linear."""
LINEAR = (Kind.INDEPENDENT,)  # that a product does not depend on the inputs is no sign of a bug in a linear function


class Part(Enum):
    """What a check is to the report; the value says it."""

    NAMED = "named in a finding, and left out"
    LEFT_OUT = "left out"
    LEADS = "counts, and its bound and coordinates are the report's"
    COUNTS = "counts"


@dataclasses.dataclass(frozen=True)
class _Case:
    """What the rules ask about the other checks of one product."""

    done: Sequence[Checked]
    wrong_outputs_known: bool
    """Whether the wrong outputs are known, and the product agrees for the others."""

    def too_small(self, one: Checked) -> bool:
        """Say whether a derivative is too small to be judged alone, beside what all outputs have.

        A relu that is off: nothing is claimed, and nothing can be measured. A saturated unit: what its uncertainty may
        hide is little. The checks of all outputs see an error there at half its strength or more.
        """
        return one.derivative <= thresholds.RESOLUTION * max(
            other.claimed_norm for other in self.done if not other.single
        )

    @property
    def others_decided(self) -> bool:
        """Whether there is a verdict on all outputs together, or on every entry by itself."""
        decided = [one for one in self.done if not one.undecided]
        entries = sum(one.single and np.count_nonzero(one.weights) == 1 for one in decided)
        return any(not one.single for one in decided) or entries >= len(self.done[0].weights)


_Holds = Callable[[Checked, _Case], bool]

RULES: tuple[tuple[Part, str, _Holds], ...] = (
    (
        Part.NAMED,
        "one output; undecided, for no other reason than a derivative too small beside the others",
        lambda one, case: one.single and one.undecided and one.harmless and case.too_small(one),
    ),
    (
        Part.LEFT_OUT,
        "all outputs; undecided for no bad reason, while others decided for all of them",
        lambda one, case: not one.single and one.undecided and one.harmless and case.others_decided,
    ),
    (
        Part.LEADS,
        "one output, where it is known which are wrong and that the others are not",
        lambda one, case: one.single and case.wrong_outputs_known,
    ),
    (
        Part.LEADS,
        "all outputs, where that is not known",
        lambda one, case: not (one.single or case.wrong_outputs_known),
    ),
    (Part.COUNTS, "any other", lambda one, case: True),
)
"""The part of a check: of the first rule that fits."""


def parts_of(done: Sequence[Checked], wrong_outputs_known: bool) -> list[Part]:
    """Return the part of each check by `RULES`; see `_Case` for ``wrong_outputs_known``."""
    case = _Case(done, wrong_outputs_known)
    return [next(part for part, _, holds in RULES if holds(one, case)) for one in done]


def merged(
    checks: Checks, done: Sequence[Checked], found: Sequence[ProductFinding], settings: Mapping[str, Any]
) -> Report:
    """Return one report of many checks of the same inputs: the worst of what was seen, block by block.

    At least one of those done weighs all outputs; `found` is what was found besides, `settings` what the report's
    settings hold besides. ``settings["visible"]`` counts the checks that decided something.
    """
    if any(finding.kind in UNSTEADY for one in done for finding in one.report.findings):
        found = [one for one in found if one.verdict.passed]
    parts = parts_of(done, any(bool(one.finding.evidence.get("others_agree")) for one in found))
    counting = [one for one, part in zip(done, parts, strict=True) if part in (Part.LEADS, Part.COUNTS)]
    leading = [one for one, part in zip(done, parts, strict=True) if part is Part.LEADS] or counting
    # of the same verdict the first decides
    decisive = max([*leading, *counting], key=lambda one: one.report.verdict.severity).report
    blocks = {name: _block([(one.single, one.report.blocks[name]) for one in counting]) for name in decisive.blocks}
    for one in found:
        for name in set(one.finding.evidence.get("blocks", ())) & set(blocks):
            blocks[name] = dataclasses.replace(blocks[name], verdict=worst([one.verdict, blocks[name].verdict]))
    named = [one.name for one, part in zip(done, parts, strict=True) if part is Part.NAMED]
    return dataclasses.replace(
        decisive,
        verdict=worst([decisive.verdict, *(one.verdict for one in found)]),
        bound=float(np.max([one.report.bound for one in leading])),
        blocks=blocks,
        wrong=_wrong(leading) or _wrong(counting),
        findings=(*_findings(found, decisive, counting), *_too_small(named)),
        coverage=min(one.report.coverage for one in counting),
        evaluations=checks.evaluations,
        seconds=checks.seconds,
        settings={**decisive.settings, **checks.settings.as_dict(), **settings, "visible": _visible(checks, done)},
        numerical=None,
    )


def _visible(checks: Checks, done: Sequence[Checked]) -> float:
    decided = sum(not one.single and not one.undecided for one in done)
    if decided:
        return visible(decided, checks.settings.confidence)
    return float(any(one.single and not one.undecided for one in done))  # every entry was looked at alone, or none


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _block(seen: Sequence[tuple[bool, BlockReport]]) -> BlockReport:
    """Return the worst of a block, of (single, report)."""
    refuted = [block for _, block in seen if block.verdict.refuted]
    relevant = refuted or [block for single, block in seen if not single] or [block for _, block in seen]
    chosen = max(relevant, key=lambda block: (block.verdict.severity, _known(block.difference)))
    return dataclasses.replace(
        chosen,
        checked=min(block.checked for block in relevant),
        bound=float(np.max([block.bound for block in relevant])),
        wrong=max(block.wrong for block in relevant),
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


def _findings(found: Sequence[ProductFinding], decisive: Report, done: Sequence[Checked]) -> tuple[Finding, ...]:
    """Return the findings about the product, then those of the check that decided, then other kinds of the rest.

    A diagnosis is that check's alone, and is left out where a finding explains the error.
    """
    explained = any(one.explains for one in found)
    findings = [one.finding for one in found]
    findings += [f for f in decisive.findings if f.kind not in LINEAR and not (explained and "blocks" in f.evidence)]
    kinds = {(finding.kind, finding.block) for finding in findings}
    for finding in (finding for one in done for finding in one.report.findings):
        of_one = finding.kind is Kind.UNCHECKED or "blocks" in finding.evidence
        if not of_one and (finding.kind, finding.block) not in kinds:
            kinds.add((finding.kind, finding.block))
            findings.append(finding)
    return tuple(findings)


def _too_small(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        yield Finding(
            Kind.SILENT_OUTPUTS,
            None,
            f"{first_of(names, 4)}: the derivative is too small to be judged alone (a relu that is off, a saturated "
            "unit?). It was judged together with the others.",
            {"outputs": list(names)},
        )
