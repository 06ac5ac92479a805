"""Which outputs is the error in? One direction is measured for all outputs at once, then cotangents are cut up."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import LossError
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.products.checks import Checked
from fastcheck.products.claims import Claim
from fastcheck.products.point import LinearizationPoint, ProductFinding
from fastcheck.products.vectors import TANGENT, bounded
from fastcheck.report import words

__all__ = ["blamed", "suspects_of"]

PARTS = 16  # that a range of outputs is cut into
MOST = 4  # outputs looked for
CALLS = 512  # of the claim
SHOWN = 4  # names in a message
STEP = 6e-6  # where a check left none: the cube root of the roundoff
FAINT = 1e-3  # of the largest residual: what may be the noise of the measured slope


def _slope(point: LinearizationPoint, v: FloatArray, step: float) -> FloatArray:
    """Return the central difference of f along v, shape (m,), by two evaluations of the function; NaN if it fails."""
    try:
        with np.errstate(all="ignore"):
            return (point.at(point.theta + step * v) - point.at(point.theta - step * v)) / (2 * step)
    except LossError:
        return np.full(point.outputs.size, np.nan)


def _suspects(
    point: LinearizationPoint, claim: Callable[[FloatArray], float], u: FloatArray, measured: FloatArray
) -> list[int]:
    """Return the outputs, at most `MOST`, in which claim and measurement differ most; they are still to be confirmed.

    Parameters
    ----------
    point : LinearizationPoint
        The function.
    claim : callable
        The claimed <u, J v> of a cotangent u.
    u : float64, shape (m,)
        The cotangent that showed the error.
    measured : float64, shape (m,)
        J v.

    Notes
    -----
    Best first: the range of outputs with the largest residual is cut into `PARTS`, so a single wrong output costs
    16 log16(m) calls of the claim and no evaluation of the function.
    """

    def residual(start: int, stop: int) -> float:
        part = np.zeros_like(u)
        part[start:stop] = u[start:stop]
        return abs(claim(part) - float(part @ measured))

    if not np.isfinite(measured).all():
        return []
    ranges = [(-residual(b.start, b.stop), b.start, b.stop) for b in point.outputs.blocks if b.size]
    heapq.heapify(ranges)
    calls, found = len(ranges), list[int]()
    largest = 0.0
    while ranges and len(found) < MOST and calls < CALLS:
        minus, start, stop = heapq.heappop(ranges)
        if -minus <= FAINT * largest:
            break
        if stop - start == 1:
            largest = max(largest, -minus)
            found.append(start)
            continue
        cuts = np.unique(np.linspace(start, stop, PARTS + 1).astype(int)).tolist()
        for low, high in itertools.pairwise(cuts):
            heapq.heappush(ranges, (-residual(low, high), low, high))
        calls += len(cuts) - 1
    return found


def suspects_of(claim: Claim, failed: Checked) -> list[int]:
    """Return the outputs that a failed cotangent's error seems to come from."""
    report = failed.report
    if report.wrong:
        name, v = report.wrong[0].block, claim.direction(report.wrong[0])
    else:  # an error of the whole block that no coordinate shows
        name, v = words.block_order(report)[0][0], np.zeros(claim.point.theta.size)
        block = claim.point.inputs[name]
        v[block.slice] = bounded(0, TANGENT, 0, block.size)
    step = report.settings.get("steps", {}).get(name, STEP * float(np.abs(claim.point.theta).max() or 1.0))
    return _suspects(claim.point, claim.slope_along(v), failed.weights, _slope(claim.point, v, step))


def blamed(claim: Claim, single: Sequence[Checked], others: Verdict) -> Iterator[ProductFinding]:
    """Yield which outputs are wrong, given the verdict on the others; the checks have their own verdicts."""
    names = [one.name for one in single if one.failed]
    rest = claim.point.outputs.size - len(names)
    if not names or not rest:
        return
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    if others.passed:
        end = f" alone: it agrees for the other {f'{rest:,}' if rest > 1 else 'output'}."
    elif others is Verdict.INCONCLUSIVE:
        end = "; the others could not all be judged."
    else:
        end = ", and for others."
    said = f"{claim.product.name} is wrong for {shown}{end}"
    unused = [one.name for one in single if one.failed and not one.claimed_norm]
    if unused:
        verb = "are never used" if len(unused) > 1 else "is never used"
        said += f" What it returns for {', '.join(unused[:SHOWN])} is zero: that part of the cotangent {verb}."
    yield ProductFinding(Finding(Kind.OUTPUTS, None, said, {"outputs": names, "others_agree": others.passed}))
