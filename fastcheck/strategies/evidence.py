"""What was measured, as evidence for the rules of the diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastcheck.context import Context
from fastcheck.diagnosis import facts_of
from fastcheck.diagnosis.data_facts import DataFacts
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Directions
from fastcheck.estimates import Estimate, Estimates, Status
from fastcheck.judge.coordinates import Lost
from fastcheck.judge.directions import BlockProbes
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.ladder import State
from fastcheck.measure.probes import Probing
from fastcheck.thresholds import GRADIENT_ROUNDING

__all__ = ["facts_about", "of_coordinates", "of_directions", "of_estimates"]

UNUSABLE = (Status.KINK, Status.JUMP, Status.UNRESOLVED)
TINY = float(np.finfo(np.float64).tiny)


def facts_about(context: Context) -> DataFacts:
    """Return what is known about the data of a run."""
    facts = facts_of(context.loss, context.args, [block.shape for block in context.layout.blocks])
    if context.replay is None:
        return facts
    return replace(facts, draws=True, scales=(*facts.scales, *context.replay.scales))


def of_estimates(context: Context, found: Estimates, verdict: Verdict) -> BlockEvidence:
    """Return what coordinates measured one by one say; those at a kink or a jump are left out."""
    block = found.block
    g, lost, _ = context.of_block(context.layout.number(block))
    usable = np.isfinite(found.value)
    for place, resolved in found.looks.items():
        if resolved.status in UNUSABLE:
            usable[found.row(place)] = False
    rows = None
    if found.coordinates is not None or not usable.all():
        rows = found.places(np.flatnonzero(usable)) - block.start
    own = lost.in_one(g)
    tolerance = found.rounding[usable].astype(np.float64) + found.truncation[usable] + own
    return BlockEvidence(
        block,
        g,
        context.theta[block.slice],
        Coordinates(rows),
        found.value[usable],
        np.maximum(tolerance, TINY),
        wrong=verdict.refuted,
        checked=verdict is not Verdict.INCONCLUSIVE,
    )


def of_directions(plan: Probing, one: BlockProbes) -> BlockEvidence:
    """Return what the directions over a block say."""
    block = one.block
    if one.joint:  # it moved with others, and was found right: nothing is known of it alone
        return BlockEvidence.without_rows(block, plan.analytic.flat, plan.evaluator.theta)
    g, theta = plan.analytic.flat[block.slice], plan.evaluator.theta[block.slice]
    probes = [probe for probe in one.probes if probe.state in (State.CLEAN, State.REPEATED)]
    own = GRADIENT_ROUNDING * float(plan.analytic.eps[one.number]) * float(np.linalg.norm(g))
    size = None
    if one.number in plan.uneven:
        size = plan.sizes(one.number, block.slice)
    return BlockEvidence(
        block,
        g,
        theta,
        Directions(plan.seed, one.number, tuple(probe.number for probe in probes), size),
        np.array([probe.slope for probe in probes], dtype=np.float64),
        np.array([probe.uncertainty for probe in probes], dtype=np.float64) + own + TINY,
        wrong=one.failed,
        checked=one.failed or not one.inconclusive,
    )


def of_coordinates(plan: Probing, one: BlockProbes, seen: Mapping[int, Estimate]) -> BlockEvidence:
    """Return what single coordinates of a block say, by their places in theta."""
    block = one.block
    places = np.array(sorted(seen), dtype=np.int64)
    g = plan.analytic.flat[block.slice]
    own = Lost(float(plan.analytic.eps[one.number])).in_one(g)
    whole = len(places) == block.size
    return BlockEvidence(
        block,
        g,
        plan.evaluator.theta[block.slice],
        Coordinates(None if whole else places - block.start),
        np.array([seen[int(place)].value for place in places]),
        np.array([seen[int(place)].uncertainty for place in places]) + own + TINY,
    )
