"""What was located, in words, with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import Block
from fastcheck.plans.regions import Region, shape_of

__all__ = ["dense", "located", "not_located", "scaled", "scaled_slice", "transposed"]


def _times(factor: float) -> str:
    """Return how the analytic gradient relates to the true one where e = c g."""
    return f"{1 / (1 - factor):.6g}" if factor != 1 else "inf"


def scaled(block: Block, factor: float) -> Finding:
    """One factor on a whole block."""
    return Finding(
        Kind.BLOCK,
        block.name,
        f"All of {block.name} is off by one factor: the analytic gradient is {_times(factor)} times the measured one.",
        {
            "where": f"all of {block.name}",
            "pattern": "factor",
            "factor": 1 / (1 - factor) if factor != 1 else float("inf"),
        },
    )


def transposed(block: Block) -> Finding:
    """A transposed square matrix."""
    return Finding(
        Kind.BLOCK,
        block.name,
        f"All of {block.name} is wrong: its analytic gradient is the transpose of the measured one.",
        {"where": f"all of {block.name}", "pattern": "transpose"},
    )


def scaled_slice(block: Block, axis: int, index: int, factor: float) -> Finding:
    """One factor on a row, a column or another slice."""
    return Finding(
        _kind(block, axis, 1),
        block.name,
        f"{_slice_name(block, axis, index, index + 1)} is off by one factor: the analytic gradient is "
        f"{_times(factor)} times the measured one.",
        {
            "where": _slice_name(block, axis, index, index + 1),
            "pattern": "factor",
            "axis": axis,
            "start": index,
            "stop": index + 1,
            "factor": 1 / (1 - factor) if factor != 1 else float("inf"),
        },
    )


def dense(block: Block, regions: Sequence[Region], analytic: FloatArray) -> list[Finding]:
    """Regions that are wrong throughout, joined where they touch; `analytic` is the gradient, shape (P,)."""
    findings = []
    for region in _joined(regions):
        kind, where, evidence = _place(block, region)
        zero = not any(np.any(analytic[low:high]) for low, high in region.runs())
        how = (
            "is zero in the analytic gradient, and not in the measured one" if zero else "is wrong, by no single factor"
        )
        pattern = {
            "where": where if kind is not Kind.BLOCK else f"all of {where}",
            "pattern": "zero" if zero else "dense",
        }
        findings.append(Finding(kind, block.name, f"All of {where} {how}.", pattern | evidence))
    return findings


def _place(block: Block, region: Region) -> tuple[Kind, str, dict[str, Any]]:
    """Return the kind of a region, its name and its place as data."""
    if (region.height, region.width) == shape_of(block):
        return Kind.BLOCK, block.name, {}
    axis, start, stop = _axis_of(block, region)
    if axis is not None:
        where = {"axis": axis, "start": start, "stop": stop}
        return _kind(block, axis, stop - start), _slice_name(block, axis, start, stop), where
    (top, bottom), (left, right) = region.rows, region.columns
    name = f"rows {top} to {bottom - 1}, columns {left} to {right - 1} of {block.name}"
    return Kind.STRIPE, name, {"rows": [top, bottom], "columns": [left, right]}


def located(block: Block, places: Sequence[int], spent: int, *, complete: bool) -> Finding:
    """Single coordinates."""
    names = ", ".join(block.breadcrumb(place) for place in places[:4])
    more = f" and {len(places) - 4:,} more" if len(places) > 4 else ""
    rest = "the rest of the block agrees" if complete else "there may be more"
    return Finding(
        Kind.LOCATED,
        block.name,
        f"Located in {block.name} among {block.size:,} coordinates with {spent} evaluations: {names}{more}; {rest}.",
        {"coordinates": list(places), "evaluations": spent, "complete": complete},
    )


def not_located(block: Block, spent: int) -> Finding:
    """The search gave up."""
    return Finding(
        Kind.NOT_LOCATED,
        block.name,
        f"{block.name} is wrong, but not all of its wrong coordinates were located with {spent} evaluations. Measure "
        f"them all with mode='full', blocks={block.name!r}, or some with mode='sample'.",
        {"evaluations": spent},
    )


def _axis_of(block: Block, region: Region) -> tuple[int | None, int, int]:
    """Return the user's axis along which a region is a range, and the range; None for a box inside the block."""
    height, width = shape_of(block)
    slow = 0 if block.order == "C" else len(block.shape) - 1
    if region.width == width:
        return slow, *region.rows
    if region.height == height and len(block.shape) == 2:
        return 1 - slow, *region.columns
    return None, 0, 0


def _kind(block: Block, axis: int, length: int) -> Kind:
    if length > 1:
        return Kind.STRIPE
    return (Kind.ROW, Kind.COLUMN)[axis] if len(block.shape) == 2 else Kind.SLICE


def _slice_name(block: Block, axis: int, start: int, stop: int) -> str:
    if len(block.shape) == 2:
        word = ("row", "column")[axis]
        places = f"{word} {start}" if stop - start == 1 else f"{word}s {start} to {stop - 1}"
        return f"{places} of {block.name}"
    where = str(start) if stop - start == 1 else f"{start}:{stop}"
    return f"{block.name}[{', '.join(where if k == axis else ':' for k in range(len(block.shape)))}]"


def _joined(regions: Sequence[Region]) -> list[Region]:
    """Join regions of equal columns whose rows touch, then those of equal rows whose columns touch."""
    left = list(regions)
    for axis in (0, 1):
        joined: list[Region] = []
        for region in sorted(left, key=lambda region: region.sides[::-1] if axis == 0 else region.sides):
            last = joined[-1] if joined else None
            touches = last and last.sides[1 - axis] == region.sides[1 - axis]
            if last and touches and last.sides[axis][1] == region.sides[axis][0]:
                joined[-1] = last.part(axis, last.sides[axis][0], region.sides[axis][1])
            else:
                joined.append(region)
        left = joined
    return left
