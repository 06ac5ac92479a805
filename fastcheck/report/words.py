"""The words of a report, chosen once; the layouts only place them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastcheck.findings import Finding, Kind, first_of
from fastcheck.judge.verdict import Verdict
from fastcheck.report.report import BlockReport, Coordinate, Report
from fastcheck.settings import Settings

__all__ = [
    "advice",
    "best_finding",
    "block_order",
    "circumstances",
    "count",
    "graded",
    "headline",
    "legible",
    "name",
    "number",
    "ratio",
    "replay",
    "seconds",
    "shape",
    "shown",
    "statement",
    "with_uncertainty",
]

NAME = 60  # characters of a name that are shown


def legible(text: str, longest: int = 2000) -> str:
    """Return a text that a terminal shows as it is: control characters escaped, and too long a one without its middle.

    A name may hold anything, also what would move the cursor or colour the screen.
    """
    if len(text) > longest:
        half = (longest - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def name(text: str) -> str:
    """Return the name of a block or a coordinate as people see it."""
    return legible(text, NAME)


def shown(report: Report, text: str) -> str:
    """Return a sentence about a report as people see it, the names in it too."""
    for long in report.blocks:
        if len(long) > NAME:
            text = text.replace(long, name(long)).replace(repr(long)[1:-1], name(long))
    return legible(text)


def number(value: float, digits: int = 2) -> str:
    """Return a value with a few digits; a dash where it is unknown."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:.{digits - 1}e}" if value and not 1e-3 <= abs(value) < 1e4 else f"{value:.{digits}g}"


def with_uncertainty(value: float, uncertainty: float) -> str:
    """Return a value with the digits that its uncertainty justifies, one more than sure."""
    if math.isnan(value):
        return "-"
    if not (uncertainty > 0 and math.isfinite(uncertainty)) or value == 0:
        return f"{value:.6g}"
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(uncertainty)) + 1
    return f"{value:.{max(1, min(digits, 10)) - 1}e}"


def graded(verdict: Verdict) -> str:
    """Return the word for a block's verdict."""
    return "unchecked" if verdict is Verdict.INCONCLUSIVE else verdict.value


def shape(shape: Sequence[int]) -> str:
    """Return ``"4×5"``."""
    return "×".join(map(str, shape)) or "scalar"


def count(n: int, noun: str) -> str:
    """Return ``"1 block"``, ``"2 blocks"``, ``"1,863,690 coordinates"``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def seconds(value: float) -> str:
    """Return a duration for people."""
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def block_order(report: Report) -> list[tuple[str, BlockReport]]:
    """Return the blocks, most severe first."""

    def severity(item: tuple[str, BlockReport]) -> tuple[int, float]:
        block = item[1]
        return -block.verdict.severity, -(0.0 if math.isnan(block.difference) else block.difference)

    return sorted(report.blocks.items(), key=severity)


def headline(report: Report) -> str:
    """Return the first line: the verdict and, where there is one, the culprit."""
    if report.verdict.refuted:
        return f"{report.verdict.value.upper()}: {_culprits(report)}"
    if report.verdict is Verdict.INCONCLUSIVE:
        best = best_finding(report)
        return f"INCONCLUSIVE: {best.message if best else report.verdict.message}"
    return f"{report.verdict.value.upper()}: {statement(report)}"


def _culprits(report: Report) -> str:
    bad = [name for name, block in block_order(report) if block.verdict.refuted]
    named = _named(report, bad)
    told = [name for _, names, _ in named for name in names]
    parts = [f"{where} {words}" for where, _, words in named] + [_culprit(report, n) for n in bad if n not in told]
    shown = ", ".join(parts[:3]) or "the whole gradient"
    if len(parts) > 3:
        before = [name for _, names, _ in named[:3] for name in names]
        shown += f" and {count(len(bad) - len(before) - max(0, 3 - len(named)), 'more block')}"
    right = [name for name, block in report.blocks.items() if block.verdict.passed]
    agree = "agrees" if len(right) == 1 else "agree"
    return shown + (f"; {len(right)} of {count(len(report.blocks), 'block')} {agree}" if right else "")


def _named(report: Report, bad: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """Return where, the blocks, and what is wrong in a few words, of findings that say so; only the first in full."""
    named: list[tuple[str, list[str], str]] = []
    for finding in report.findings:
        blocks = [name for name in finding.evidence.get("blocks", ()) if name in bad]
        if blocks and "short" in finding.evidence:
            words = str(finding.evidence["short"])
            words = str(finding.evidence.get("shorter", words)) if named else words
            named.append((str(finding.evidence.get("where", first_of(blocks, 3))), blocks, words))
    return named


def best_finding(report: Report) -> Finding | None:
    """Return the finding that decides what to do: the first there is something to do about, else the first."""
    return next((f for f in report.findings if f.kind.remedy), next(iter(report.findings), None))


def advice(report: Report) -> str:
    """Return what to do next, by the best finding; empty where that one's own words say so, or nothing is to be done.

    The verdict's general advice is for reports in which nothing was found that says more.
    """
    best = best_finding(report)
    if report.passed:
        return ""
    if best is None or (report.verdict.refuted and not any(f.block or "blocks" in f.evidence for f in report.findings)):
        return report.verdict.remedy
    told = best.message in headline(report) and report.verdict is Verdict.INCONCLUSIVE  # with its own remedy
    return "" if report.verdict.refuted or told else best.kind.remedy


def _culprit(report: Report, name: str) -> str:
    listed = [c for c in report.wrong if c.block == name]
    wrong = report.blocks[name].wrong
    pattern = next((f.evidence["where"] for f in report.findings if f.block == name and "where" in f.evidence), None)
    if pattern is not None:
        return str(pattern)
    if not listed:
        return name
    if wrong == 1:
        return listed[0].name
    if wrong == report.blocks[name].checked == report.blocks[name].size:
        return f"{name} (all {wrong:,}, worst {listed[0].name})"
    return f"{name} ({wrong:,} of {report.blocks[name].checked:,}, worst {listed[0].name})"


def statement(report: Report) -> str:
    """Return the sentence that a person can quote of a pass."""
    checked = [block for block in report.blocks.values() if block.verdict.passed]
    unchecked = [name for name, block in report.blocks.items() if not block.verdict.passed]
    bounds = [block.bound for block in checked if not math.isnan(block.bound)]
    size, confidence = report.size, 100 * float(report.settings.get("confidence", math.nan))
    who = "every block" if not unchecked else f"{len(checked)} of {count(len(report.blocks), 'block')}"
    verb = "are" if unchecked and len(checked) != 1 else "is"
    said = f"{who} of this {size:,}-parameter gradient {verb} right"
    if any(finding.kind is Kind.REFERENCE for finding in report.findings):
        said += " to the rounding of its own precision, beside the reference"
    elif len(bounds) < len(checked):
        said += f" at {count(sum(block.checked for block in checked), 'sampled coordinate')}"
    elif bounds:
        said += f" to {number(max(bounds))} with {confidence:.6g}% confidence"
    if report.coverage == 1:
        said += ", every coordinate measured"
    if unchecked:
        said += f" (unchecked: {', '.join(unchecked[:4])}{', ...' if len(unchecked) > 4 else ''})"
    return said + f"; {count(report.evaluations, 'evaluation')}, {seconds(report.seconds)}"


def ratio(coordinate: Coordinate) -> str:
    """Return how the analytic derivative relates to the measured one, where that says something."""
    if abs(coordinate.numerical) <= 4 * coordinate.uncertainty:
        return ""
    quotient = coordinate.analytic / coordinate.numerical + 0.0
    off = quotient - 1
    if not off:
        return ""
    return f"×{quotient:.4g}" if abs(off) > 1e-3 else f"×(1 {'+' if off > 0 else '-'} {abs(off):.1e})"


def replay(settings: Mapping[str, Any]) -> str:
    """Return what repeats the run: the command; or the call with its seed and every setting that is not the default."""
    if "command" in settings:
        return str(settings["command"])
    given = []
    for field in dataclasses.fields(Settings):
        value = settings.get(field.name, field.default)
        if field.name == "seed" or (field.name != "progress" and value != field.default):
            given.append(f"{field.name}={value!r}")
    return f"fastcheck.{settings.get('call', 'check(loss, gradient, params')}, {', '.join(given)})"


def circumstances(settings: Mapping[str, Any]) -> str:
    """Return which loss it was, when, and with what, as far as the report says."""
    where = f" in {settings['where']}" if settings.get("where") else ""
    loss = f"the loss {settings['loss']}{where}" if settings.get("loss") else ""
    versions = ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items())
    return "; ".join(filter(None, (loss, settings.get("date", ""), versions)))
