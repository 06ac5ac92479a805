"""A product with a Jacobian as checks of losses <u, f>: which cotangents u, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.gradients import match_gradient
from fastcheck.judge.verdict import Verdict, worst
from fastcheck.parameters import Parameters
from fastcheck.products.checks import Checked, Checks, Cotangent
from fastcheck.products.claims import Claim
from fastcheck.products.outputs import blamed, suspects_of
from fastcheck.products.point import LinearizationPoint, ProductFinding
from fastcheck.products.vectors import COTANGENT, bounded, unit

__all__ = ["check_all", "cotangents_for"]

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

    Parameters
    ----------
    claim : Claim
        The product.
    checks : Checks
        Runs them.
    chosen : sequence of Cotangent
    **over
        Settings that replace those of the run.
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
