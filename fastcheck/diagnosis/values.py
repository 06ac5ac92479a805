"""Errors that the values of the gradient itself betray: zeros, constants, copies, clipping, float32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.hypothesis import Explained, Hypothesis, Number, Rule
from fastcheck.diagnosis.wording import advice, named, numbers, only, shown
from fastcheck.findings import Finding, Kind

__all__ = ["VALUES"]

FACT = 10.0  # digits of what stands in the analytic gradient itself: no accident puts it there
SINGLE = 1e-5  # relative error that float32 arithmetic may reach
SINGLE_DIGITS = math.log10(2.0**29)  # of a float64 that are zeros where it is a float32


def _zero(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    if not block.g.any():
        yield Hypothesis(Kind.ZERO, np.zeros(len(block.n)), -FACT)


def _tell_zero(group: Sequence[Explained], evidence: Evidence) -> Finding:
    names = named(group)
    everything = all(not block.g.any() for block in evidence.blocks)
    return Finding(
        Kind.ZERO,
        only(group),
        f"gradient of {'every block' if everything else names} is all zeros, the measured one is not: "
        f"{advice(Kind.ZERO)}",
        numbers(group, short="all zeros"),
    )


def _independent(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield n = 0."""
    if block.g.any() and len(block.n) > 1:
        yield Hypothesis(Kind.INDEPENDENT, block.n)


def _tell_independent(group: Sequence[Explained], evidence: Evidence) -> Finding:
    names = named(group)
    return Finding(
        Kind.INDEPENDENT,
        only(group),
        f"the loss does not depend on {names}, whose gradient is not zero: {advice(Kind.INDEPENDENT)}",
        numbers(group, short="should be zero"),
    )


def _constant(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield g = sum(n), or mean(n), in every entry: summed over the units too, and broadcast."""
    g = block.g
    if len(g) < 2 or not g[0] or not np.all(np.abs(g - g[0]) <= 1e-12 * abs(g[0])):
        return
    if not block.whole or not np.isfinite(block.n).all():
        yield Hypothesis(Kind.BIAS_SUM, np.zeros(len(block.n)), pattern=True)
        return
    tolerance = np.full(len(g), float(block.tolerance.sum()))
    for words, value in (("sum", block.n.sum()), ("mean", block.n.mean())):
        width = tolerance if words == "sum" else tolerance / len(g)
        yield Hypothesis(Kind.BIAS_SUM, g - value, 0.5, tolerance=width, facts={"words": words})
    yield Hypothesis(Kind.BIAS_SUM, np.zeros(len(g)), pattern=True)


def _tell_constant(group: Sequence[Explained], evidence: Evidence) -> Finding:
    words = group[0].hypothesis.facts.get("words")
    of = f", the {words} of the measured gradient over all of them" if words else ""
    return Finding(
        Kind.BIAS_SUM,
        only(group),
        f"gradient of {named(group)} has the same value in every entry{of}: summed over the wrong "
        f"axis? {Kind.BIAS_SUM.remedy}",
        numbers(group, short="the same value in every entry"),
    )


def _copied(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    if not block.g.any() or len(block.g) < 2:
        return
    for other in evidence.right:
        if other.block.shape == block.block.shape and np.array_equal(block.array(block.g), other.array(other.g)):
            yield Hypothesis(Kind.COPIED, np.zeros(len(block.n)), -FACT, facts={"other": other.name})
            return


def _tell_copied(group: Sequence[Explained], evidence: Evidence) -> Finding:
    said = "; ".join(f"gradient of {e.name} is a copy of that of {e.hypothesis.facts['other']}" for e in group)
    return Finding(
        Kind.COPIED,
        only(group),
        f"{said}, which is right: {advice(Kind.COPIED)}",
        numbers(group, short=f"a copy of {group[0].hypothesis.facts['other']}"),
    )


def _clipped(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield g = clip(n, -c, c), c being the largest size in the block or in all of them, where it stands twice."""
    if block.rows is None:
        return
    largest = [float(np.abs(b.g).max(initial=0.0)) for b in evidence.blocks]
    for limit in dict.fromkeys((max(largest), float(np.abs(block.g).max(initial=0.0)))):
        if limit and sum(int(np.count_nonzero(np.abs(b.g) == limit)) for b in evidence.blocks) >= 2:
            clipped = np.clip(block.n, -limit, limit)
            yield Hypothesis(Kind.CLIPPED, block.claimed - clipped, 1.0, Number(limit, 0.0))


def _tell_clipped(group: Sequence[Explained], evidence: Evidence) -> Finding:
    limit = group[0].hypothesis.number or Number(math.nan, 0.0)
    rows = sum(int(np.count_nonzero(np.abs(e.block.error) > e.block.tolerance)) for e in group)
    return Finding(
        Kind.CLIPPED,
        only(group),
        f"gradient of {named(group)} is clipped at ±{shown(limit)}: {rows:,} entries beyond it "
        f"stand at the limit, the others are right. {Kind.CLIPPED.remedy}",
        numbers(group, limit=limit.value, short=f"clipped at ±{shown(limit)}"),
    )


def _integer(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield the measured derivatives cut off or rounded to whole numbers; or zeros of an integer dtype."""
    whole = bool(np.all(block.g == np.rint(block.g)))
    if block.rows is None and block.name in evidence.integers:  # along directions, its dtype is all there is to go by
        yield Hypothesis(Kind.INTEGER, np.zeros(len(block.n)), -FACT - 1)
    elif whole and (block.g.any() or block.name in evidence.integers) and block.rows is not None:
        g, n, t = block.claimed, block.n, block.tolerance
        if np.all(np.abs(n - np.rint(n)) <= t):  # whole numbers themselves: nothing was cut off
            return
        likely = (np.trunc(n - t), np.trunc(n + t), np.floor(n - t), np.floor(n + t), np.rint(n - t), np.rint(n + t))
        yield Hypothesis(Kind.INTEGER, np.min([np.abs(g - one) for one in likely], axis=0), -FACT - 1)


def _tell_integer(group: Sequence[Explained], evidence: Evidence) -> Finding:
    return Finding(
        Kind.INTEGER,
        only(group),
        f"gradient of {named(group)} consists of whole numbers, the measured ones cut off or "
        f"rounded: {advice(Kind.INTEGER)}",
        numbers(group, short="cut off to whole numbers"),
    )


def _single(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield a gradient whose every value is a float32, off by no more than float32 arithmetic can be."""
    g = block.g[block.g != 0]
    with np.errstate(over="ignore"):
        same = g.astype(np.float32).astype(np.float64) == g
    if len(g) and same.all() and np.linalg.norm(block.error) <= SINGLE * np.linalg.norm(block.claimed):
        yield Hypothesis(Kind.FLOAT32, np.zeros(len(block.n)), -SINGLE_DIGITS)


def _tell_single(group: Sequence[Explained], evidence: Evidence) -> Finding:
    size = max(float(np.linalg.norm(e.block.error) / np.linalg.norm(e.block.claimed)) for e in group)
    return Finding(
        Kind.FLOAT32,
        only(group),
        f"gradient of {named(group)} consists of float32 numbers and is off by a relative "
        f"{size:.1g}, as float32 arithmetic is: {advice(Kind.FLOAT32)}",
        numbers(group, relative=size, short="float32 arithmetic?"),
    )


VALUES = (
    Rule(_integer, _tell_integer),
    Rule(_zero, _tell_zero),
    Rule(_copied, _tell_copied),
    Rule(_independent, _tell_independent),
    Rule(_constant, _tell_constant),
    Rule(_clipped, _tell_clipped),
    Rule(_single, _tell_single),
)
