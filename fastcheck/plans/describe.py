"""What was located, in words, with its evidence."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.finding import Finding
from fastcheck.parameters import Block
from fastcheck.plans.regions import Region, shape_of

__all__ = ["dense", "located", "not_located", "scaled", "scaled_slice", "transposed"]


def _times(factor: float) -> str:
    """Return how the analytic gradient relates to the true one where e = c g."""
    return f"{1 / (1 - factor):.6g}" if factor != 1 else "inf"


def scaled(block: Block, factor: float) -> Finding:
    """One factor on a whole block."""
    return Finding(
        "block",
        block.name,
        f"All of {block.name} is off by one factor: the analytic gradient is {_times(factor)} times the measured one.",
        {"pattern": "factor", "factor": 1 / (1 - factor) if factor != 1 else float("inf")},
    )


def transposed(block: Block) -> Finding:
    """A transposed square matrix."""
    return Finding(
        "block",
        block.name,
        f"All of {block.name} is wrong: its analytic gradient is the transpose of the measured one.",
        {"pattern": "transpose"},
    )


def scaled_slice(block: Block, axis: int, index: int, factor: float) -> Finding:
    """One factor on a row, a column or another slice."""
    return Finding(
        _kind(block, axis, 1),
        block.name,
        f"{_slice_name(block, axis, index, index + 1)} is off by one factor: the analytic gradient is "
        f"{_times(factor)} times the measured one.",
        {"axis": axis, "start": index, "stop": index + 1, "factor": 1 / (1 - factor) if factor != 1 else float("inf")},
    )


def dense(block: Block, regions: Sequence[Region]) -> list[Finding]:
    """Regions that are wrong throughout, joined where they touch."""
    height, width = shape_of(block)
    findings = []
    for region in _joined(regions):
        if (region.height, region.width) == (height, width):
            message = f"All of {block.name} is wrong, by no single factor."
            findings.append(Finding("block", block.name, message, {"pattern": "dense"}))
            continue
        axis, start, stop = _axis_of(block, region)
        if axis is None:
            where = f"rows {region.rows[0]} to {region.rows[1] - 1}, columns {region.columns[0]} to "
            where += f"{region.columns[1] - 1} of {block.name}"
            evidence = {"rows": list(region.rows), "columns": list(region.columns)}
            findings.append(Finding("stripe", block.name, f"All of {where} is wrong.", evidence))
            continue
        findings.append(
            Finding(
                _kind(block, axis, stop - start),
                block.name,
                f"All of {_slice_name(block, axis, start, stop)} is wrong.",
                {"axis": axis, "start": start, "stop": stop},
            )
        )
    return findings


def located(block: Block, places: Sequence[int], spent: int, *, complete: bool) -> Finding:
    """Single coordinates."""
    names = ", ".join(block.breadcrumb(place) for place in places[:4])
    more = f" and {len(places) - 4:,} more" if len(places) > 4 else ""
    rest = "the rest of the block agrees" if complete else "there may be more"
    return Finding(
        "located",
        block.name,
        f"Located in {block.name} among {block.size:,} coordinates with {spent} evaluations: {names}{more}; {rest}.",
        {"coordinates": list(places), "evaluations": spent, "complete": complete},
    )


def not_located(block: Block, spent: int) -> Finding:
    """The search gave up."""
    return Finding(
        "not_located",
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


def _kind(block: Block, axis: int, length: int) -> str:
    if length > 1:
        return "stripe"
    return ("row", "column")[axis] if len(block.shape) == 2 else "slice"


def _slice_name(block: Block, axis: int, start: int, stop: int) -> str:
    if len(block.shape) == 2:
        word = ("row", "column")[axis]
        return f"{word} {start} of {block.name}" if stop - start == 1 else f"{word}s {start} to {stop - 1} of {block.name}"
    where = str(start) if stop - start == 1 else f"{start}:{stop}"
    return f"{block.name}[{', '.join(where if k == axis else ':' for k in range(len(block.shape)))}]"


def _joined(regions: Sequence[Region]) -> list[Region]:
    """Join regions of equal columns whose rows touch, and the other way round, until nothing joins."""
    left = sorted(regions, key=lambda region: (region.columns, region.rows))
    for name, other in (("rows", "columns"), ("columns", "rows")):
        joined: list[Region] = []
        for region in sorted(left, key=lambda region: (getattr(region, other), getattr(region, name))):
            last = joined[-1] if joined else None
            if last and getattr(last, other) == getattr(region, other) and getattr(last, name)[1] == getattr(region, name)[0]:
                joined[-1] = last.stretched(name, getattr(region, name)[1])
            else:
                joined.append(region)
        left = joined
    return left
