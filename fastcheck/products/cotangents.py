"""A product with a Jacobian as checks of losses <u, f>: which cotangents u, and what becomes of them."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import LossError
from fastcheck.findings import Finding, Kind, first_of
from fastcheck.gradients import match_gradient
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.measure.directions import COTANGENT, TANGENT, bounded, unit
from fastcheck.parameters import Parameters
from fastcheck.products.checks import Checked, Checks, Cotangent
from fastcheck.products.claims import Claim
from fastcheck.products.point import LinearizationPoint, ProductFinding
from fastcheck.report import words

__all__ = ["blamed", "check_all", "cotangents_for", "suspects_of"]

FEW = 8  # outputs, or entries of them, that are each looked at by themselves
RANDOM = 3  # cotangents at random where there are more


def cotangents_for(point: LinearizationPoint, count: int | None, seed: int) -> list[Cotangent]:
    """Return cotangents: some that weigh all outputs at random, and few outputs each by itself."""
    size, blocks = point.outputs.size, [block for block in point.outputs.blocks if block.size]
    each = 1 < size <= max(FEW, count or 0)
    of_blocks: list[Cotangent] = []
    if not each and size > 1 and 1 < len(blocks) <= FEW:
        for number, block in enumerate(blocks):
            u = np.zeros(size)
            u[block.slice] = bounded(seed, COTANGENT + 1 + number, 0, block.size)
            of_blocks.append(Cotangent(point.name_of(block), point.representable(u), True))
    dense = 1 if each or size == 1 else RANDOM if count is None else count
    at_random = [point.representable(bounded(seed, COTANGENT, k, size)) for k in range(dense)]
    return [
        *(Cotangent("all outputs", u, False) for u in at_random),
        *(_entry(point, i) for i in range(size) if each),
        *of_blocks,
    ]


def _entry(point: LinearizationPoint, index: int) -> Cotangent:
    return Cotangent(point.entry(index), unit(index, point.outputs.size), True)


def check_all(
    claim: Claim, checks: Checks, chosen: Sequence[Cotangent], **over: Any
) -> tuple[list[Checked], list[ProductFinding]]:
    """Check every cotangent; where one fails, find out which outputs are to blame.

    `over` are settings that replace those of the run.
    """
    over = {"mode": _mode(claim.point, checks, len(chosen)), **over}

    def run(one: Cotangent, left: int = 1) -> Checked:
        gradient, norm = claim.gradient(one.weights), 0.0

        def measured(params: Any, *args: Any) -> Any:
            nonlocal norm
            returned = gradient(params, *args)
            norm = float(np.linalg.norm(match_gradient(returned, Parameters.of(params)).flat))
            return returned

        report = checks(left, claim.loss(one.weights), measured, claim.params, claim.point.args, **over)
        return Checked(one.name, one.weights, one.single, report, norm)

    done = [run(one, len(chosen) - number) for number, one in enumerate(chosen)]
    failed, size = [one for one in done if one.failed], claim.point.outputs.size
    if not failed or size == 1:
        return done, []
    single = [one for one in done if one.single]
    if len(single) == size:
        return done, list(blamed(claim, single, worst(one.report.verdict for one in single if not one.failed)))
    suspects = suspects_of(claim, failed[0])
    checks.evaluations += 2
    single = [run(_entry(claim.point, i)) for i in suspects]
    rest = failed[0].weights.copy()
    rest[suspects] = 0
    others = run(Cotangent("the other outputs", rest, True)).report.verdict if suspects else Verdict.WRONG
    return [*done, *single], list(blamed(claim, single, others))


def _mode(point: LinearizationPoint, checks: Checks, count: int) -> str:
    """Return one mode for all checks, so that together they are no longer than a single one may be."""
    began = time.perf_counter()
    point.at(point.theta.copy())
    checks.evaluations += 1
    mode = checks.settings.mode_for(count * point.theta.size, time.perf_counter() - began)
    low = any(block.dtype.itemsize < point.theta.itemsize for block in point.inputs.blocks)
    return checks.settings.mode if mode == "screen" and low else mode  # each may then prefer a sample


# -- which outputs the error is in: one direction is measured for all of them, then cotangents are cut up -------------


PARTS = 16  # that a range of outputs is cut into
MOST = 4  # outputs looked for
CALLS = 512  # of the claim
NAMED = 4  # names in a message
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

    `claim` is the claimed <u, J v> of a cotangent u, `u` the one that showed the error, `measured` J v; both of shape
    (m,). Best first: the range of outputs with the largest residual is cut into `PARTS`, so a single wrong output costs
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
    if others.passed:
        end = f" alone: it agrees for the other {f'{rest:,}' if rest > 1 else 'output'}."
    elif others is Verdict.INCONCLUSIVE:
        end = "; the others could not all be judged."
    else:
        end = ", and for others."
    said = f"{claim.product.name} is wrong for {first_of(names, NAMED)}{end}"
    unused = [one.name for one in single if one.failed and not one.claimed_norm]
    if unused:
        verb = "are never used" if len(unused) > 1 else "is never used"
        said += f" What it returns for {', '.join(unused[:NAMED])} is zero: that part of the cotangent {verb}."
    yield ProductFinding(Finding(Kind.OUTPUTS, None, said, {"outputs": names, "others_agree": others.passed}))
