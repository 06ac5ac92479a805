"""A report along random tangents, said in terms of the inputs, with a wrong coordinate of each wrong block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import Block
from fastcheck.products.checks import Checked, Checks
from fastcheck.products.claims import TangentClaim
from fastcheck.products.tangents import Tangents, spread
from fastcheck.report import BlockReport, Coordinate, Report

__all__ = ["FULL", "in_inputs"]

FULL: dict[str, Any] = {"mode": "full", "samples": None, "blocks": None}
"""Settings of a check along tangents: of the few coefficients, every one."""

PARTS = 16  # that a block is cut into to find a wrong coordinate
MOST = 4  # blocks in which one is looked for
_OF_BLOCKS = ("factor", "sign", "zero")
_OF_US = ("tangent", "vector", "outputs", "asymmetric")


def in_inputs(report: Report, claim: TangentClaim, done: Sequence[Checked], checks: Checks) -> Report:
    """Return the report in terms of the inputs, with a wrong coordinate looked for in each wrong block."""
    failed = sorted((one for one in done if one.failed), key=lambda one: not one.single)
    located = list(_located(report, claim, failed[0].weights, checks)) if failed else []
    wrong = tuple(coordinate for coordinate, _ in located)
    vectors = claim.tangents.of
    factor = spread(len(next(iter(vectors.values()))), len(vectors), checks.settings.confidence)
    blocks = {
        block.name: _block(block, report, factor, sum(c.block == block.name for c in wrong))
        for block in claim.point.inputs.blocks
    }
    return replace(
        report,
        bound=float(np.max([blocks[block.name].bound for block in vectors])),
        blocks=blocks,
        wrong=wrong,
        findings=(*_about_blocks(report.findings), *(finding for _, finding in located if finding)),
        coverage=0.0,
        evaluations=checks.evaluations,
        seconds=checks.seconds,
    )


def _block(block: Block, report: Report, factor: float, wrong: int) -> BlockReport:
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
