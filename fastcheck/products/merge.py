"""Many checks of the same inputs -> one report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastcheck.findings import Finding, Kind
from fastcheck.products.checks import Checked, Checks
from fastcheck.products.point import Told
from fastcheck.products.vectors import visible
from fastcheck.report import BlockReport, Coordinate, Report
from fastcheck.verdict import Verdict, worst

__all__ = ["merged"]

UNSTEADY = (Kind.RANDOM_LOSS, Kind.STATEFUL_LOSS, Kind.COUNTING_LOSS, Kind.GRADIENT_CHANGES_LOSS)
"""Found of a function that is another one at each call. So is its product, which then only seems not to be linear."""
LINEAR = (Kind.INDEPENDENT,)  # that a product does not depend on the inputs is no sign of a bug in a linear function


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
    error there at half its strength or more, so it does not spoil a pass; it is named. ``settings["visible"]`` counts
    those that decided something.
    """
    if any(finding.kind in UNSTEADY for one in done for finding in one.report.findings):
        told = [one for one in told if one.verdict.passed]
    heard = max(one.claimed for one in done if not one.alone)
    audible = _decided([one for one in done if not one.silent(heard)])
    exact = any(bool(one.finding.evidence.get("others_agree")) for one in told)
    judges = [one for one in audible if one.alone is exact] or audible
    worst_first = [*judges, *audible]  # of the same verdict the first decides
    leading = max(worst_first, key=lambda one: one.report.verdict.severity).report
    blocks = {name: _block([(one.alone, one.report.blocks[name]) for one in audible]) for name in leading.blocks}
    for one in told:
        for name in set(one.finding.evidence.get("blocks", ())) & set(blocks):
            blocks[name] = dataclasses.replace(blocks[name], verdict=worst([one.verdict, blocks[name].verdict]))
    return dataclasses.replace(
        leading,
        verdict=worst([leading.verdict, *(one.verdict for one in told)]),
        bound=float(np.max([one.report.bound for one in judges])),
        blocks=blocks,
        wrong=_wrong(judges) or _wrong(audible),
        findings=(*_findings(told, leading, audible), *_silent([one.name for one in done if one.silent(heard)])),
        coverage=min(one.report.coverage for one in audible),
        evaluations=checks.evaluations,
        seconds=checks.seconds,
        settings={**leading.settings, **checks.settings.as_dict(), **settings, "visible": _visible(checks, done)},
        numerical=None,
    )


def _visible(checks: Checks, done: Sequence[Checked]) -> float:
    decided = sum(not one.alone and not one.undecided for one in done)
    if decided:
        return visible(decided, checks.settings.confidence)
    return float(any(one.alone and not one.undecided for one in done))  # every entry was looked at alone, or none


def _decided(audible: list[Checked]) -> list[Checked]:
    """Leave out checks of all outputs that decided nothing, where others did, or every entry was decided alone."""
    decided = [one for one in audible if not one.undecided]
    single = [one.weights for one in decided if np.count_nonzero(one.weights) == 1]
    if all(one.alone for one in decided) and len(single) < len(audible[0].weights):
        return audible
    return [one for one in audible if one.alone or not (one.undecided and one.harmless)]


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _block(seen: Sequence[tuple[bool, BlockReport]]) -> BlockReport:
    """Return the worst of a block, of (alone, report); it passes where all outputs were weighed, or not at all."""
    refuted = [block for _, block in seen if not block.verdict.passed and block.verdict is not Verdict.INCONCLUSIVE]
    told = refuted or [block for alone, block in seen if not alone] or [block for _, block in seen]
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
        of_one = finding.kind is Kind.UNCHECKED or "blocks" in finding.evidence
        if not of_one and (finding.kind, finding.block) not in kinds:
            kinds.add((finding.kind, finding.block))
            findings.append(finding)
    return tuple(findings)


def _silent(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield Finding(
            Kind.SILENT_OUTPUTS,
            None,
            f"{shown}: the derivative is too small to be judged alone (a relu that is off, a saturated unit?). It was "
            "judged together with the others.",
            {"outputs": list(names)},
        )
