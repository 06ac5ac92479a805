"""The words of the rules: whose error is explained and how well, and what a fitted factor or lambda is likely to mean.

Every reading of a number is a question, never a claim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypothesis import Explained, Number
from fastcheck.findings import Finding, Kind, first_of

__all__ = [
    "about_wrong",
    "advice",
    "interpret_factor",
    "likely_factors",
    "listed",
    "named",
    "numbers",
    "only",
    "shown",
    "shown_factor",
    "wrong_in",
]

NAMED = 6  # blocks named in a sentence


def advice(kind: Kind) -> str:
    """Return what to do about a kind of bug, as the end of a sentence."""
    return kind.remedy[:1].lower() + kind.remedy[1:]


def listed(names: Sequence[str]) -> str:
    """Return ``"W1, W2 and W3"``, or the first few and how many more."""
    if len(names) > NAMED:
        return first_of(names, NAMED)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def named(group: Sequence[Explained]) -> str:
    """Return the names of the blocks as `listed`."""
    return listed([explained.name for explained in group])


def wrong_in(evidence: Evidence) -> str:
    """Return the names of all wrong blocks as `listed`."""
    return listed([block.name for block in evidence.wrong])


def about_wrong(kind: Kind, evidence: Evidence, message: str, **more: Any) -> Finding:
    """Return a finding about all wrong blocks together."""
    blocks = [block.name for block in evidence.wrong]
    return Finding(kind, blocks[0] if len(blocks) == 1 else None, message, {"blocks": blocks, **more})


def only(group: Sequence[Explained]) -> str | None:
    """Return the block's name if it is a single one."""
    return group[0].name if len(group) == 1 else None


def numbers(group: Sequence[Explained], **more: Any) -> dict[str, Any]:
    """Return the evidence of a finding.

    ``explained`` is the share of the squared error that it explains in the block where that is least, ``exceptions``
    the rows it does not explain, ``score`` the digits it saves (an error of another kind fits it by accident with a
    probability of about 10^-score), ``short`` the words for the headline.
    """
    return {
        "blocks": [explained.name for explained in group],
        "explained": min(explained.share for explained in group),
        "exceptions": sum(explained.exceptions for explained in group),
        "score": round(sum(explained.score for explained in group), 1),
        **more,
    }


# -- readings of numbers ----------------------------------------------------------------------------------------------


MOST_BATCHES = 1000  # sizes of a full batch that a smaller last one may have been taken for
VAGUE = 1e-2  # relative half width of a factor that may be anything
NEAR_ONE = 1e-3  # distance from 1 below which a factor is shown as 1 + a difference
LARGEST_INTEGER = 10_000  # a factor that is an integer up to here is worth saying


def likely_factors(facts: DataFacts) -> tuple[float, ...]:
    """Return the factors by which gradients are usually wrong, the most usual first."""
    m = facts.batch
    nominal = (m / k for k in range(m + 1, min(2 * m, m + MOST_BATCHES)))
    return tuple(dict.fromkeys((*(value for value, _ in _table(facts)), *nominal)))


def interpret_factor(factor: Number, facts: DataFacts) -> str:
    """Return what a factor (analytic over measured) may come from, e.g. ``"missing 1/m? (batch m = 3)"``; or ""."""
    if factor.half > VAGUE * abs(factor.value):
        return ""
    for value, words in _table(facts):
        if factor.near(value):
            return words
    for value in (factor.value, 1 / factor.value if factor.value else math.inf):
        nearest = round(value) if abs(value) < LARGEST_INTEGER else 0
        if abs(nearest) > 1 and factor.near(nearest if value == factor.value else 1 / nearest):
            side = "missing" if value == factor.value else "superfluous"
            return f"{side} division by {nearest}?"
    return _nominal(factor, facts)


def _table(facts: DataFacts) -> Iterator[tuple[float, str]]:
    m, classes = facts.batch, facts.classes
    yield -1.0, "the sign is wrong"
    if m > 1:
        yield float(m), f"missing 1/m? (batch m = {m})"
        yield 1 / m, f"divided by m twice? (batch m = {m})"
        yield float(-m), f"the sign is wrong, and 1/m is missing? (batch m = {m})"
    yield 2.0, "the 1/2 of a square forgotten, or added twice?"
    yield 0.5, "the 2 of a square's derivative forgotten, or halved twice?"
    yield -2.0, "the sign is wrong, and a 1/2 is missing?"
    yield -0.5, "the sign is wrong, and a 2 is missing?"
    if classes > 1:
        yield float(classes), f"missing division by the number of classes? ({classes})"
        yield 1 / classes, f"averaged over the {classes} classes too?"
        if m > 1:
            yield float(m * classes), f"missing the mean over samples and classes? ({m} × {classes})"
            yield 1 / (m * classes), f"a mean over samples and classes too much? ({m} × {classes})"
    for n in facts.sizes:
        if n not in (m, 2):
            yield float(n), f"missing 1/{n}? ({n} is the length of an axis of the data)"
            yield 1 / n, f"divided by {n} twice? ({n} is the length of an axis of the data)"
    if m > 2:
        yield m / (m - 1), f"divided by m - 1 for m? (batch m = {m})"
        yield (m - 1) / m, f"divided by m for m - 1? (batch m = {m})"
    for n in sorted({8, 16, 32, 64, 128, 256, 512, *facts.sizes} - {4}):  # the root of 4 is the 2 above
        root = math.sqrt(n)
        yield root, f"missing 1/sqrt({n})? (a scale such as attention's)"
        yield 1 / root, f"divided by sqrt({n}) twice? (a scale such as attention's)"
    for scalar in facts.scalars:
        if scalar not in (0.0, 1.0) and math.isfinite(scalar):
            yield scalar, f"{scalar:g} is among the arguments: applied once too often?"
            yield 1 / scalar, f"{scalar:g} is among the arguments: forgotten?"


def _nominal(factor: Number, facts: DataFacts) -> str:
    """Return the reading of m/k with an integer k: a batch of m divided by another batch's size."""
    if facts.batch < 2 or factor.value <= 0:
        return ""
    k = round(facts.batch / factor.value)
    if k < 1 or k > 4 * facts.batch or not factor.near(facts.batch / k):
        return ""
    return f"divided by {k}, where this batch has m = {facts.batch}? (the last batch is smaller)"


def shown(number: Number) -> str:
    """Return a fitted number with five digits, or with those that its interval justifies."""
    if number.value == 0:
        return "0"
    digits = 5
    if number.half > 0:
        digits = max(1, min(5, 1 + math.floor(math.log10(abs(number.value) / number.half))))
    return f"{number.value:#.{digits}g}".rstrip(".")


def shown_factor(factor: Number, digits: int = 0) -> str:
    """Return a factor with so many digits, or as `shown`; as ``(1 + 1.2e-05)`` where it is close to 1."""
    off = factor.value - 1
    if 0 < abs(off) < NEAR_ONE:
        return f"(1 {'+' if off > 0 else '-'} {abs(off):.1e})"
    return f"{factor.value:#.{digits}g}".rstrip(".") if digits else shown(factor)
