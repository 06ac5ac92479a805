"""check_jvp(): a Jacobian-vector product, as forward mode computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.conclude import record
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.directions import TANGENT, bounded
from fastcheck.parameters import Block
from fastcheck.plain import plain_products
from fastcheck.preflight import low_precision
from fastcheck.products.checks import Checked, Checks, merged, positive
from fastcheck.products.claims import ColumnClaim, TangentClaim, Tangents, spread
from fastcheck.products.cotangents import check_all, cotangents_for
from fastcheck.products.linearity import Linear, changes_vector, nonlinear
from fastcheck.products.point import LinearizationPoint, Product, ProductFinding
from fastcheck.report import BlockReport, Coordinate, Report
from fastcheck.settings import as_args

__all__ = ["check_jvp", "report_of"]

EACH = 64  # inputs up to which every unit tangent is taken
RANDOM = 8  # tangents at random of each block where there are more
KEY = 1 << 16  # key of the vectors that linearity is tried with


def check_jvp(
    function: Callable[..., Any],
    jvp: Callable[..., Any],
    inputs: Any,
    *,
    args: tuple[Any, ...] = (),
    tangents: int | None = None,
    cotangents: int | None = None,
    throw: bool = False,
    **options: Any,
) -> Report:
    """Check a Jacobian-vector product J v of a function with any number of outputs, as forward mode computes it.

    Parameters
    ----------
    function : callable
        ``function(inputs, *args)`` returns an array, or a tree of arrays, of floats.
    jvp : callable
        ``jvp(inputs, tangent, *args)`` returns J v, a tree like the outputs; the tangent v is a tree like inputs.
    inputs : tree of float arrays
        Where to check; as `fastcheck.check` takes its params. The arrays are read, never written.
    args : tuple
        Further positional arguments of both.
    tangents : int, optional
        How many random tangents go through each block of the inputs. By default, and wherever there are as many as
        coordinates, every unit tangent up to 64 inputs or with ``mode="full"``, else 8.
    cotangents : int, optional
        How many random cotangents weigh the outputs; as for `check_vjp`.
    throw : bool
        Raise `GradientError` unless the verdict is a pass.
    **options
        As for `fastcheck.check`: mode, blocks, tolerance, confidence, seed, step, scheme, budget, workers, ...

    Returns
    -------
    Report
        Block by block of the inputs. Where tangents were drawn at random, ``checked`` is 0, and ``wrong`` lists one
        coordinate of each wrong block.

    Raises
    ------
    InputError
        An argument breaks a rule, or the product does not fit the outputs.
    LossError
        The function or the product raises, or returns a value that is not finite.
    GradientError
        With ``throw=True``, when the product did not pass.
    """
    checks, args = Checks("check_jvp", options), as_args(args)
    counts = positive("tangents", tangents), positive("cotangents", cotangents)
    with plain_products(function, jvp, inputs, "jvp", like=(False, True, False)) as (function, jvp, inputs):
        point = LinearizationPoint.of(function, inputs, args)
        report = report_of(point, Product(jvp, "jvp", "tangent"), checks, "check_jvp(function, jvp, inputs", *counts)
    return report.raise_if_wrong() if throw else report


def report_of(
    point: LinearizationPoint,
    product: Product,
    checks: Checks,
    call: str,
    tangents: int | None,
    cotangents: int | None,
    more: Callable[[], Iterator[ProductFinding]] = lambda: iter(()),
) -> Report:
    """Return the report of a product with the Jacobian at a point.

    `call` is the beginning of the call that repeats it; `more` is asked for what else was found.
    """
    size, settings = point.theta.size, checks.settings
    checks.evaluations += 1
    chosen = cotangents_for(point, cotangents, settings.seed)
    checks.count = len(chosen)
    found = list(_not_linear(point, product, checks))
    each = size <= EACH or settings.mode == "full" if tangents is None else tangents >= size
    at_random = RANDOM if tangents is None else tangents
    if each:
        done, of_outputs = check_all(ColumnClaim(point, product), checks, chosen)
    else:
        tangents_of = Tangents.at_random(point, point.inputs.select(settings.blocks), at_random, settings.seed)
        along = TangentClaim(point, product, tangents_of)
        if point.refusal is not None:  # the coefficients that are checked are of float64: nothing else would say it
            found.append(ProductFinding(low_precision(point.inputs, point.refusal)))
        done, of_outputs = check_all(along, checks, chosen, **FULL)
    data = record(point.function, point.args, call) | {
        "cotangents": [one.name for one in chosen],
        "tangents": "each" if each else at_random,
    }
    report = merged(checks, done, [*found, *of_outputs, *more()], data)
    return report if each else _in_inputs(report, along, done, checks)


def _not_linear(point: LinearizationPoint, product: Product, checks: Checks) -> Iterator[ProductFinding]:
    u, w = (bounded(checks.settings.seed, TANGENT + KEY, k, point.theta.size) for k in range(2))
    if not point.double:
        u, w = (point.inputs.flatten(point.inputs.astype_user(v)) for v in (u, w))
    ask = Linear(partial(point.pushed, product), product, point.outputs.blocks, checks.settings.tolerance)
    inputs = [block.name for block in point.inputs.select(checks.settings.blocks)]
    for found in nonlinear(ask, u, w):  # its blocks are of the outputs; the report's are of the inputs
        evidence = {**found.finding.evidence, "blocks": inputs, "outputs": found.finding.evidence["blocks"]}
        yield replace(found, finding=replace(found.finding, evidence=evidence))
    if point.changes(product, point.tree(u.copy())):
        yield ProductFinding(changes_vector(product))


# -- a report along random tangents, in terms of the inputs -----------------------------------------------------------


FULL: dict[str, Any] = {"mode": "full", "samples": None, "blocks": None}
"""Settings of a check along tangents: of the few coefficients, every one."""

PARTS = 16  # that a block is cut into to find a wrong coordinate
MOST = 4  # blocks in which one is looked for
_OF_BLOCKS = ("factor", "sign", "zero")
_OF_US = ("tangent", "vector", "outputs", "asymmetric")


def _in_inputs(report: Report, claim: TangentClaim, done: Sequence[Checked], checks: Checks) -> Report:
    """Return the report in terms of the inputs, with a wrong coordinate looked for in each wrong block."""
    failed = sorted((one for one in done if one.failed), key=lambda one: not one.single)
    located = list(_located(report, claim, failed[0].weights, checks)) if failed else []
    wrong = tuple(coordinate for coordinate, _ in located)
    vectors = claim.tangents.of
    factor = spread(len(next(iter(vectors.values()))), len(vectors), checks.settings.confidence)
    blocks = {
        block.name: _in_block(block, report, factor, sum(c.block == block.name for c in wrong))
        for block in claim.point.inputs.blocks
    }
    return replace(
        report,
        bound=float(np.max([blocks[block.name].bound for block in vectors])),
        blocks=blocks,
        wrong=wrong,
        sweep=None,
        findings=(*_about_blocks(report.findings), *(finding for _, finding in located if finding)),
        coverage=0.0,
        evaluations=checks.evaluations,
        seconds=checks.seconds,
    )


def _in_block(block: Block, report: Report, factor: float, wrong: int) -> BlockReport:
    """Return what is known of a block: nothing of one that was not chosen."""
    nan = float("nan")
    seen = report.blocks.get(block.name)
    if seen is None:
        return BlockReport(block.shape, block.size, 0, nan, nan, nan, float("inf"), Verdict.INCONCLUSIVE)
    bound, detectable = factor * seen.bound, factor * seen.detectable
    whole = replace(seen, shape=block.shape, size=block.size, bound=bound, detectable=detectable)
    return replace(whole, checked=0, wrong=wrong)


def _located(
    report: Report, claim: TangentClaim, u: FloatArray, checks: Checks
) -> Iterator[tuple[Coordinate, Finding | None]]:
    """Yield a wrong coordinate of each wrong block, where one can be singled out."""
    for block in [block for block in claim.tangents.of if report.blocks[block.name].verdict.refuted][:MOST]:
        start, stop, share = 0, block.size, ""
        while True:
            cut = replace(claim, tangents=Tangents.parts(claim.point, block, start, stop, PARTS))
            seen = checks(1, cut.loss(u), cut.gradient(u), cut.params, claim.point.args, **FULL)
            if not seen.wrong:
                break
            worst = seen.wrong[0]
            share = share or f"{seen.blocks[block.name].wrong} of {len(cut.tangents.of[block])} parts"
            vector = cut.tangents.of[block][worst.index[0]]
            inside = np.flatnonzero(vector)
            if len(inside) == 1:
                yield _entry(worst, block, int(inside[0]), float(vector[inside[0]])), _say(block, share)
                break
            start, stop = int(inside[0]), int(inside[-1]) + 1


def _entry(seen: Coordinate, block: Block, place: int, scale: float) -> Coordinate:
    """Return the coordinate of the inputs that a part with a single entry is."""
    index = block.multi_index(block.start + place)
    return Coordinate(block.name, index, seen.analytic / scale, seen.numerical / scale, seen.uncertainty / abs(scale))


def _say(block: Block, share: str) -> Finding | None:
    if block.size <= PARTS:
        return None
    said = (
        f"{block.name} was looked at along random tangents; cut up, {share} of it are wrong, and one entry of the "
        "worst part is listed. mode='full' measures every entry."
    )
    return Finding(Kind.COORDINATE, block.name, said)


def _about_blocks(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings that are not about single coefficients of the tangents, which mean nothing to the user."""
    for finding in findings:
        of_coefficients = "blocks" in finding.evidence and finding.kind not in _OF_BLOCKS
        if not (of_coefficients and not finding.kind.startswith(_OF_US)):
            yield finding
