"""The screen: a few random directions over each block bound the error of all of its coordinates at once.

With e the error of a block's gradient, the residual along a Gaussian direction is N(0, ||e||^2) whatever e looks like,
so a handful of them gives an exact bound on ||e|| (`fastcheck.judge.bounds`). The number of evaluations depends on how
sure one wants to be, not on how many coordinates there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck import thresholds
from fastcheck.context import Context, Outcome
from fastcheck.estimates import Status
from fastcheck.judge.bounds import split
from fastcheck.judge.directions import BlockProbes
from fastcheck.measure.noise import uneven
from fastcheck.measure.probes import FEW, RATIO, Probe, Probing, loud_one, probe_step
from fastcheck.measure.probes import measure as measure_along
from fastcheck.measure.regions import Region
from fastcheck.parameters import Block
from fastcheck.strategies import full
from fastcheck.strategies.coordinates import measured
from fastcheck.strategies.evidence import facts_about
from fastcheck.strategies.joint import Joint, screen_jointly
from fastcheck.strategies.locate import locate

__all__ = ["chosen", "measure", "probing_of", "screen"]

HOPELESS = 100.0  # times what a block may be uncertain by: its other coordinates are not that much sharper


def probing_of(context: Context) -> Probing:
    """Return what a probe needs."""
    return Probing(
        context.evaluator, context.analytic, context.base, context.noise, context.judge, context.run, context.seed
    )


def measure(context: Context) -> Outcome:
    """Screen the chosen blocks, and locate the errors of those that fail."""
    context = context.counting(thresholds.PROBES * len(context.blocks))
    context.run.begin()
    plan = probing_of(context)
    screened = screen(plan, context.blocks, context.settings.confidence)
    failed = [one for one in screened if one.failed]
    located = locate(plan, failed, facts_about(context)) if failed else {}
    estimates = {name: one.derivatives() for name, one in located.items()}
    small = [one for one in screened if one.probes and one.block.size <= FEW]
    if context.run.stopped is None and context.noise.relative <= thresholds.NO_DIGITS:
        small = [one for one in small if (located[one.block.name].nowhere if one.failed else one.inconclusive)]
        blocks = tuple((one.number, one.block) for one in small if one.failed or not _hopeless(plan, one))
        if blocks and context.run.stopped is None:
            found = full.measure(replace(context, blocks=blocks), [None] * len(blocks)).estimates
            estimates |= {one.block.name: one for one in found}
    return Outcome(context, list(estimates.values()), screened, located, settings=chosen(screened))


def _hopeless(plan: Probing, one: BlockProbes) -> bool:
    """Say whether a block's coordinates could neither acquit nor refute it, by the one that should be clearest.

    Its error is bounded already: what is less certain than that bound shows nothing.
    """
    start, part = one.block.start, one.block.slice
    if uneven(plan.evaluator.theta[part]):  # each entry has a step of its own there
        return False
    top = start + int(np.argmax(np.abs(plan.analytic.flat[part])))
    seen = measured(plan, one.number, [top]).get(top)
    if seen is None or seen.status not in (Status.SMOOTH, Status.CROSSED):
        return False
    return seen.uncertainty > max(HOPELESS * 2 * plan.judge.limit * one.norm, one.bound_of_error)


def chosen(screened: Sequence[BlockProbes]) -> dict[str, Any]:
    """Return what a report's settings hold of a screen: step, measured derivative and residual of every direction."""
    groups: dict[tuple[Probe, ...], list[str]] = {}
    for one in screened:
        groups.setdefault(one.joint or tuple(one.probes), []).append(one.block.name)
    directions = {
        names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names):,} blocks)": {
            "steps": [probe.step for probe in probes],
            "slopes": [probe.slope for probe in probes],
            "residuals": [probe.residual for probe in probes],
        }
        for probes, names in groups.items()
    }
    return {"directions": directions}


def screen(
    plan: Probing,
    chosen: Iterable[tuple[int, Block]],
    confidence: float,
    looks: Sequence[int] = thresholds.LOOKS,
    joint: bool = True,
) -> list[BlockProbes]:
    """Screen blocks, with their numbers in the layout, the small ones first; about 7 evaluations each on a smooth loss.

    The confidence is of all the bounds together; a block is judged, and may be done, after so many directions as
    `looks` say. Joint: all blocks move at once first, and alone only those that this does not settle. The result is in
    the order of the blocks; one that a stopped run did not come to has no probes.
    """
    chosen = list(chosen)
    each = split(confidence, len(looks) * len(chosen) * (2 if joint else 1))
    found = [
        BlockProbes(
            n,
            b,
            plan.norm(n),
            plan.judge.tolerance,
            plan.judge.limit,
            confidence,
            each,
            float(plan.analytic.doubt[n]),
        )
        for n, b in chosen
    ]
    for one in found:
        one.unit, one.stretch = plan.units(one.number)
    probed = [one for one in found if one.block.size]
    alone = probed
    if joint and len(probed) > 1:
        alone = screen_jointly(Joint.of(plan), probed, looks)
    for one in sorted(alone, key=lambda one: one.block.size):
        if one.block.size:
            step = probe_step(plan, plan.norm_to_measure(one.number), plan.natural(one.number))
            if one.probes and RATIO * one.probes[0].step < step:  # alone it is seen more sharply
                one.probes = []
            step = one.probes[0].step if one.probes else step
            _screen_block(plan, one, step, looks)
            plan.run.advance(one.block.size)
    return found


def _screen_block(plan: Probing, one: BlockProbes, step: float, looks: Sequence[int]) -> None:
    region = Region.whole(one.number, one.block)
    for look in looks:
        while len(one.probes) < look:
            probe = measure_along(plan, region, _unused(one.probes), step, like=loud_one(one.probes))
            if probe is None:
                return
            one.probes.append(probe)
            step = probe.next_step(step)
        one.look()
        if one.settled:
            return


def _unused(probes: Sequence[Probe]) -> int:
    """Return the number of the next direction."""
    used = {probe.number for probe in probes}
    return next(number for number in itertools.count() if number not in used)
