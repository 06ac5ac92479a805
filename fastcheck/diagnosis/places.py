"""Errors that sit in one place: single coordinates, one row, column or channel, a part of a block, a factor for each.

The rules read measured coordinates. Of a slice that is off by one factor, directions tell as well: the error is then
c g there, and its products with them are known but for c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.diagnosis.evidence import BlockEvidence, Directions, Evidence
from fastcheck.diagnosis.hypothesis import LEFT, Explained, Hypothesis, Number, Rule, number_cost
from fastcheck.diagnosis.wording import advice, interpret_factor, likely_factors, named, numbers, only, shown_factor
from fastcheck.findings import Finding, Kind, first_of

__all__ = ["COORDINATES", "PLACES", "REGIONS", "in_coordinates", "in_region"]

FEW = 0.02  # share of a block's coordinates that are still single ones
NAMED = 4
THROUGHOUT = 0.5  # share of a slice or a region that must be wrong for it to be called so
LARGEST = 0.5  # share of a block that a region may be
SMALLEST = 4  # wrong coordinates of a region


def _clear(block: BlockEvidence) -> FloatArray:
    clear = np.maximum(np.abs(block.error) - block.tolerance, 0.0)
    return np.asarray(clear * clear)


def _indices(block: BlockEvidence, rows: IntArray) -> tuple[IntArray, ...]:
    return np.unravel_index(rows, block.block.shape, order=block.block.order)  # type: ignore[call-overload,no-any-return]


# -- coordinates ----------------------------------------------------------------------------------------------------


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
    yield in_coordinates(block, residual, wrong, k * math.log10(len(rows)), of=len(rows))


def in_coordinates(
    block: BlockEvidence, residual: FloatArray, wrong: IntArray, cost: float = 0.0, **facts: Any
) -> Hypothesis:
    """Return the hypothesis that the rows `wrong`, coordinates of a block, hold its error."""
    rows = block.rows
    assert rows is not None
    places = [block.block.multi_index(block.block.start + int(row)) for row in rows[wrong]]
    facts |= {"places": places, "ratios": _ratios(block, wrong)}
    return Hypothesis(Kind.COORDINATE, residual, cost, pattern=True, facts=facts)


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
                reading = interpret_factor(ratio, evidence.facts)
                said = f" ({shown_factor(ratio)} × the measured one{': ' + reading if reading else ''})"
            parts.append(f"{explained.name}{list(place)}{said}")
    said = first_of(parts, NAMED)
    one = len(parts) == 1
    short = f"wrong in {len(parts)} coordinates"
    if one:
        short = f"×{shown_factor(ratio, 4)} of the measured one" if isinstance(ratio, Number) else "alone wrong"
    return Finding(
        Kind.COORDINATE,
        only(group),
        f"{said} {'is' if one else 'are'} {_among(group)}: {advice(Kind.COORDINATE)}",
        numbers(
            group,
            places=places,
            short=short,
            **({"where": f"{group[0].name}{list(places[0][1])}"} if one else {}),
            **{key: group[0].hypothesis.facts[key] for key in ("complete", "evaluations") if len(group) == 1}
            if "complete" in group[0].hypothesis.facts
            else {},
        ),
    )


def _among(group: Sequence[Explained]) -> str:
    """Say how much of the blocks the others are, and how that is known."""
    facts = [explained.hypothesis.facts for explained in group]
    total, names = sum(one["of"] for one in facts), named(group)
    if all("complete" not in one for one in facts):
        return f"alone wrong, of {total:,} measured in {names}"
    if any(one.get("besides") for one in facts):
        return f"wrong, besides the parts named, of {total:,} in {names}"
    if all(one.get("complete", True) for one in facts):
        return f"alone wrong, of {total:,} in {names}"
    return f"wrong, of {total:,} in {names}, and there may be more"


# -- slices and regions ---------------------------------------------------------------------------------------------


def _slices(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield one row, column or channel that holds the error: with one factor, or with any values."""
    rows, shape = block.rows, block.block.shape
    if sum(n > 1 for n in shape) < 2:
        return
    if rows is None:
        yield from _scaled_slices(block, evidence)
        return
    clear = _clear(block)
    if not clear.any():
        return
    index = _indices(block, rows)
    for axis, length in enumerate(shape):
        if length < 2:
            continue
        held = np.bincount(index[axis], clear, length) / clear.sum()
        k = int(np.argmax(held))
        inside = index[axis] == k
        if held[k] >= 1 - LEFT and np.count_nonzero(inside) >= 2 and np.count_nonzero(clear[inside]) >= 2:
            facts = {"axis": axis, "index": k}
            yield from _within(block, evidence, Kind.SLICE, inside, math.log10(sum(shape)), facts)


def _within(
    block: BlockEvidence, evidence: Evidence, kind: Kind, inside: NDArray[np.bool_], cost: float, facts: dict[str, Any]
) -> Iterator[Hypothesis]:
    """Yield that rows inside a part of a block hold the error: zeros, one factor, or any values."""
    residual = np.where(inside, 0.0, block.error)
    g, n, weight = block.claimed[inside], block.n[inside], 1 / block.tolerance[inside]
    if not g.any():
        yield Hypothesis(kind, residual, cost, alone=True, facts={**facts, "words": "is zero"})
        return
    fitted = _ratio(g, n, weight)
    if fitted is not None:
        factor = Number(1 / fitted.value, fitted.half / fitted.value**2)
        left = residual.copy()
        left[inside] = n - fitted.value * g
        paid = cost + number_cost(factor, 1.0, likely_factors(evidence.facts))
        yield Hypothesis(kind, left, paid, alone=True, facts={**facts, "factor": factor})
    wrong, looked = int(np.count_nonzero(_clear(block)[inside])), int(np.count_nonzero(inside))
    if wrong >= THROUGHOUT * looked:
        counts = {"wrong": wrong, "looked": looked, "all": looked == _size(block, facts)}
        yield Hypothesis(kind, residual, cost, pattern=True, alone=True, facts={**facts, **counts})


def _size(block: BlockEvidence, facts: dict[str, Any]) -> int:
    """Return how many entries a slice or a region has."""
    if "box" in facts:
        return int(math.prod(stop - start for start, stop in facts["box"]))
    return block.block.size // block.block.shape[int(facts["axis"])]


def _ratio(g: FloatArray, n: FloatArray, weight: FloatArray) -> Number | None:
    """Return a of n = a g by weighted least squares; None where nothing is to be fitted."""
    squared = float(np.sum((weight * g) ** 2))
    value = float(np.sum(weight**2 * g * n)) / squared if squared else 0.0
    return Number(value, math.sqrt(len(g) / squared)) if value else None


def _scaled_slices(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield, for each axis, the slice whose products with the directions fit the error best: e = c g there alone."""
    view, shape = block.view, block.block.shape
    if not isinstance(view, Directions) or len(view.probes) < 2:
        return
    axes = [axis for axis, length in enumerate(shape) if 1 < length < block.block.size]
    sums: dict[int, list[FloatArray]] = {axis: [] for axis in axes}
    for probe in view.probes:
        product = block.array(view.drawn(probe, 0, len(block.g)) * block.g)
        for axis in axes:
            sums[axis].append(product.sum(axis=tuple(other for other in range(len(shape)) if other != axis)))
    weight = 1 / block.tolerance**2
    for axis in axes:
        products = np.stack(sums[axis])
        squared = weight @ products**2
        with np.errstate(invalid="ignore", divide="ignore"):
            c = np.where(squared > 0, ((weight * block.error) @ products) / squared, 0.0)
        left = block.error[:, None] - c * products
        k = int(np.argmin(weight @ left**2))
        if not c[k] or c[k] == 1:
            continue
        half = math.sqrt(len(weight) / squared[k])
        factor = Number(1 / (1 - c[k]), half / (1 - c[k]) ** 2)
        paid = number_cost(factor, 1.0, likely_factors(evidence.facts)) + math.log10(sum(shape))
        facts = {"axis": axis, "index": k, "factor": factor}
        yield Hypothesis(Kind.SLICE, left[:, k], paid, alone=True, facts=facts)


def _regions(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield the smallest box that holds the error, where it is a part of the block and no slice."""
    rows = block.rows
    wrong = _clear(block) > 0
    if rows is None or np.count_nonzero(wrong) < SMALLEST:
        return
    index = _indices(block, rows)
    box = [(int(axis[wrong].min()), int(axis[wrong].max()) + 1) for axis in index]
    yield from in_region(block, evidence, box)


def in_region(block: BlockEvidence, evidence: Evidence, box: Sequence[tuple[int, int]]) -> Iterator[Hypothesis]:
    """Yield that a box, first and last plus one along each axis, holds the error of the rows, which are coordinates."""
    rows, shape = block.rows, block.block.shape
    assert rows is not None
    partial = [axis for axis, (start, stop) in enumerate(box) if stop - start < shape[axis]]
    if not partial:
        return
    index = _indices(block, rows)
    inside = np.all([(axis >= start) & (axis < stop) for axis, (start, stop) in zip(index, box, strict=True)], axis=0)
    cost = sum(2 * math.log10(shape[axis]) for axis in partial)
    if len(partial) == 1 and box[partial[0]][1] - box[partial[0]][0] == 1 and len(shape) > 1:
        facts = {"axis": partial[0], "index": box[partial[0]][0]}
        yield from _within(block, evidence, Kind.SLICE, inside, cost, facts)
    elif math.prod(stop - start for start, stop in box) <= LARGEST * block.block.size:
        yield from _within(block, evidence, Kind.REGION, inside, cost, {"box": list(box)})


def _where(block: BlockEvidence, facts: Any) -> tuple[str, str]:
    """Return a slice or a region as ``W[3, :]``, and what it is called besides."""
    ndim = len(block.block.shape)
    if "box" in facts:
        parts = [
            ":" if (start, stop) == (0, length) else f"{start}:{stop}" if stop - start > 1 else str(start)
            for (start, stop), length in zip(facts["box"], block.block.shape, strict=True)
        ]
        return f"{block.name}[{', '.join(parts)}]", "this part"
    axis, k = int(facts["axis"]), int(facts["index"])
    place = ", ".join(str(k) if i == axis else ":" for i in range(ndim))
    words = f"{('row', 'column')[axis]} {k}" if ndim == 2 else f"slice {k} of axis {axis}"
    return f"{block.name}[{place}]", words


def _imaginary(block: BlockEvidence, facts: Any) -> bool:
    """Say whether a slice holds the second of pairs along the last axis."""
    last = len(block.block.shape) - 1
    return facts.get("axis") == last and block.block.shape[last] == 2 and facts["index"] == 1


def _tell_parts(group: Sequence[Explained], evidence: Evidence) -> Finding:
    first = group[0]
    kind, facts = first.hypothesis.kind, first.hypothesis.facts
    where, words = _where(first.block, facts)
    words = words if facts.get("besides") else f"{words} alone"
    factor = facts.get("factor")
    if isinstance(factor, Number) and factor.near(-1.0) and _imaginary(first.block, facts):
        kind = Kind.CONJUGATE
    remedy = advice(kind)
    if isinstance(factor, Number):
        times = f"is {shown_factor(factor)} × the measured one"
        remedy = remedy if kind is Kind.CONJUGATE else interpret_factor(factor, evidence.facts) or remedy
        short = f"×{shown_factor(factor, 4)} of the measured one"
    elif "words" in facts:
        times, remedy = "is zero, the measured one is not", "never filled in: a loop or a slice that ends early?"
        short = "all zeros"
    else:
        wrong, looked = facts["wrong"], facts["looked"]
        share = f"all {looked:,}" if wrong == looked else f"{wrong:,} of {looked:,}"
        times, short = f"is wrong in {share} entries{'' if facts['all'] else ' measured there'}", "wrong"
    place = {key: facts[key] for key in ("axis", "index", "box") if key in facts}
    return Finding(
        kind,
        first.name,
        f"gradient of {where} ({words}) {times}: {remedy}",
        numbers(
            group,
            where=where,
            short=short,
            **place,
            **({"factor": factor.value} if isinstance(factor, Number) else {}),
        ),
    )


# -- a factor for each ----------------------------------------------------------------------------------------------


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
        f"gradient of {first.name} is off by a factor of its own for every index of axis {axis} ({some}): "
        f"{advice(Kind.AXIS_FACTOR)}",
        numbers(group, axis=axis, factors=factors, short=f"a factor for each index of axis {axis}"),
    )


COORDINATES = Rule(_coordinates, _tell_coordinates)
SLICES = Rule(_slices, _tell_parts)
REGIONS = Rule(_regions, _tell_parts)
PLACES = (COORDINATES, SLICES, REGIONS, Rule(_axis_factors, _tell_axis_factors))
