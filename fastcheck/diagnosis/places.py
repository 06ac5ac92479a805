"""Errors that sit in one place: single coordinates, one row, column or channel, a factor of its own for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.hypothesis import LEFT, Explained, Hypothesis, Number, Rule, number_cost
from fastcheck.diagnosis.readings import likely_factors, read_factor, shown
from fastcheck.diagnosis.told import listed, numbers, only
from fastcheck.findings import Finding, Kind

__all__ = ["PLACES"]

FEW = 0.02  # share of a block's coordinates that are still single ones
NAMED = 4


def _clear(block: BlockEvidence) -> FloatArray:
    clear = np.maximum(np.abs(block.error) - block.tolerance, 0.0)
    return np.asarray(clear * clear)


def _indices(block: BlockEvidence, rows: IntArray) -> tuple[IntArray, ...]:
    return np.unravel_index(rows, block.block.shape, order=block.block.order)  # type: ignore[call-overload,no-any-return]


def _coordinates(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield the fewest coordinates that hold the error."""
    rows = block.rows
    if rows is None or len(rows) < 2:
        return
    clear = _clear(block)
    if not clear.any():
        return
    order = np.argsort(-clear, kind="stable")
    held = np.cumsum(clear[order]) / clear.sum()
    k = int(np.searchsorted(held, 1 - LEFT)) + 1
    if k > max(1, FEW * len(rows)):
        return
    wrong = np.sort(order[:k])
    residual = block.error.copy()
    residual[wrong] = 0.0
    places = [block.block.multi_index(block.block.start + int(row)) for row in rows[wrong]]
    facts = {"places": places, "ratios": _ratios(block, wrong), "of": len(rows)}
    yield Hypothesis(Kind.COORDINATE, residual, k * math.log10(len(rows)), pattern=True, facts=facts)


def _ratios(block: BlockEvidence, rows: IntArray) -> list[Number | None]:
    """Return analytic over measured in some rows; None where the measured one is not clear of zero."""
    ratios: list[Number | None] = []
    for row in rows.tolist():
        g, n, t = float(block.claimed[row]), float(block.n[row]), float(block.tolerance[row])
        ratios.append(Number(g / n, abs(g) * t / n**2) if abs(n) > 4 * t else None)
    return ratios


def _tell_coordinates(group: Sequence[Explained], evidence: Evidence) -> Finding:
    parts, places, ratio = [], [], None
    for explained in group:
        facts = explained.hypothesis.facts
        for place, ratio in zip(facts["places"], facts["ratios"], strict=True):
            places.append((explained.name, place))
            said = ""
            if isinstance(ratio, Number):
                reading = read_factor(ratio, evidence.facts)
                said = f" ({shown(ratio)} × the measured one{': ' + reading if reading else ''})"
            parts.append(f"{explained.name}{list(place)}{said}")
    total = sum(explained.hypothesis.facts["of"] for explained in group)
    said = ", ".join(parts[:NAMED]) + (f" and {len(parts) - NAMED} more" if len(parts) > NAMED else "")
    verb = "alone is wrong" if len(parts) == 1 else "alone are wrong"
    times = ratio if len(parts) == 1 else None
    where = {"where": f"{group[0].name}{list(places[0][1])}"} if len(parts) == 1 else {}
    short = f"wrong in {len(parts)} of {total:,} coordinates"
    if where:
        short = f"×{times.value:#.4g} of the measured one" if isinstance(times, Number) else "alone wrong"
    return Finding(
        Kind.COORDINATE,
        only(group),
        f"{said} {verb}, of {total:,} measured in {listed([e.name for e in group])}: a special case, a border, an "
        "entry written twice or overwritten?",
        numbers(group, places=places, short=short, **where),
    )


def _slices(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield one row, column or channel that holds the error: with one factor, or with any values."""
    rows, shape = block.rows, block.block.shape
    clear = _clear(block)
    if rows is None or sum(n > 1 for n in shape) < 2 or not clear.any():
        return
    index = _indices(block, rows)
    for axis, length in enumerate(shape):
        if length < 2:
            continue
        held = np.bincount(index[axis], clear, length) / clear.sum()
        k = int(np.argmax(held))
        inside = index[axis] == k
        if held[k] < 1 - LEFT or np.count_nonzero(inside) < 2 or np.count_nonzero(clear[inside]) < 2:
            continue
        cost = math.log10(sum(shape))
        residual = np.where(inside, 0.0, block.error)
        facts = {"axis": axis, "index": k}
        g, n, weight = block.claimed[inside], block.n[inside], 1 / block.tolerance[inside]
        if not g.any():
            yield Hypothesis(Kind.SLICE, residual, cost, alone=True, facts={**facts, "words": "is zero"})
            continue
        fitted = _ratio(g, n, weight)
        if fitted is not None:
            factor = Number(1 / fitted.value, fitted.half / fitted.value**2)
            left = residual.copy()
            left[inside] = n - fitted.value * g
            paid = cost + number_cost(factor, 1.0, likely_factors(evidence.facts))
            yield Hypothesis(Kind.SLICE, left, paid, alone=True, facts={**facts, "factor": factor})
        if np.count_nonzero(clear[inside]) >= 0.5 * np.count_nonzero(inside):
            yield Hypothesis(Kind.SLICE, residual, cost, pattern=True, alone=True, facts=facts)


def _ratio(g: FloatArray, n: FloatArray, weight: FloatArray) -> Number | None:
    """Return a of n = a g by weighted least squares; None where nothing is to be fitted."""
    squared = float(np.sum((weight * g) ** 2))
    value = float(np.sum(weight**2 * g * n)) / squared if squared else 0.0
    return Number(value, math.sqrt(len(g) / squared)) if value else None


def _tell_slices(group: Sequence[Explained], evidence: Evidence) -> Finding:
    first = group[0]
    facts, ndim = first.hypothesis.facts, len(first.block.block.shape)
    axis, k = int(facts["axis"]), int(facts["index"])
    place = ", ".join(str(k) if i == axis else ":" for i in range(ndim))
    words = ("row", "column")[axis] if ndim == 2 else f"slice {k} of axis {axis}"
    words += f" {k}" if ndim == 2 else ""
    factor = facts.get("factor")
    times, remedy, short = "is wrong", "a loop or a slice that ends early, a unit treated apart?", "alone wrong"
    if isinstance(factor, Number):
        times = f"is {shown(factor)} × the measured one"
        remedy, short = read_factor(factor, evidence.facts) or remedy, f"×{factor.value:#.4g} of the measured one"
    elif "words" in facts:
        times, remedy = "is zero, the measured one is not", "never filled in: a loop or a slice that ends early?"
        short = "all zeros"
    return Finding(
        Kind.SLICE,
        first.name,
        f"gradient of {first.name}[{place}] ({words} alone) {times}: {remedy}",
        numbers(
            group,
            axis=axis,
            index=k,
            where=f"{first.name}[{place}]",
            short=short,
            **({"factor": factor.value} if isinstance(factor, Number) else {}),
        ),
    )


def _axis_factors(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield a factor of its own for every index along one axis."""
    rows, shape = block.rows, block.block.shape
    if rows is None or sum(n > 1 for n in shape) < 2:
        return
    index, weight = _indices(block, rows), 1 / block.tolerance
    for axis, length in enumerate(shape):
        if length < 2 or len(rows) < 2 * length:
            continue
        squared = np.bincount(index[axis], (weight * block.claimed) ** 2, length)
        fitted = np.bincount(index[axis], weight**2 * block.claimed * block.n, length)
        here = squared > 0
        a = np.divide(fitted, squared, out=np.ones(length), where=here)
        half = np.sqrt(np.bincount(index[axis], minlength=length) / np.where(here, squared, 1.0))
        off = np.abs(a - 1) > half
        if np.count_nonzero(off & here) < 2 or np.any(off & here & (np.abs(a) <= half)):
            continue
        digits = np.log10(1 + np.abs(a - 1) / np.where(here, half, 1.0))
        cost = float(digits.sum()) + 0.3 * length + 2.0
        factors = [float(1 / x) if x else math.inf for x in a]
        facts = {"axis": axis, "factors": factors}
        yield Hypothesis(Kind.AXIS_FACTOR, block.n - a[index[axis]] * block.claimed, cost, alone=True, facts=facts)


def _tell_axis_factors(group: Sequence[Explained], evidence: Evidence) -> Finding:
    first = group[0]
    axis, factors = int(first.hypothesis.facts["axis"]), first.hypothesis.facts["factors"]
    some = ", ".join(f"{factor:.4g}" for factor in factors[:NAMED]) + (", ..." if len(factors) > NAMED else "")
    return Finding(
        Kind.AXIS_FACTOR,
        first.name,
        f"gradient of {first.name} is off by a factor of its own for every index of axis {axis} ({some}): something "
        "for each unit is missing, such as an activation's derivative, a scale or a mask.",
        numbers(group, axis=axis, factors=factors, short=f"a factor for each index of axis {axis}"),
    )


PLACES = (
    Rule(_coordinates, _tell_coordinates),
    Rule(_slices, _tell_slices),
    Rule(_axis_factors, _tell_axis_factors),
)
