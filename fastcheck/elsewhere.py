"""Blocks that theta itself says nothing of: does the loss depend on them anywhere, and is their gradient right nearby?

A block whose derivative is zero or below the noise at theta may be one that the loss never depends on (a bias before
batch normalisation), or theta may be a special point: weights of zero, dead units, a saturated softmax. The first is
told by moving the block alone, far, at theta and at points around it. In the second case the same check is made at a
generic point nearby, if the gradient is a function that can be asked there. So it is where all that seems wrong is at
kinks: of several that coincide (a relu of integers) a right backward pass may take any, and no two slopes tell which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.context import Context, Outcome, prepared
from fastcheck.errors import InputError, LossError
from fastcheck.estimates import Status
from fastcheck.findings import Finding, Kind, first_of
from fastcheck.gradients import match_gradient
from fastcheck.judge.judge import Judged, Verdicts, judge
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.ladder import State
from fastcheck.measure.noise import FLOAT64_EPS, scale_by_magnitudes, scale_of_blocks
from fastcheck.parameters import Block
from fastcheck.run import OutOfBudget
from fastcheck.strategies import strategy_for

__all__ = ["decided_elsewhere"]

JOG = 1e-9  # a step after which a gradient that means something is nearly the same,
CHANGED = 1e-2  # and what rounding leaves of zero has changed by more than this share of itself
JOGS = 4  # points beside one elsewhere that show how noisy J is there,
JOGGED = 4 * FLOAT64_EPS  # each a few roundings of the parameters away
NAMED = 6  # blocks named in a sentence


def decided_elsewhere(outcome: Outcome, verdicts: Verdicts) -> tuple[Verdicts, tuple[Finding, ...]]:
    """Decide what can be of the blocks that theta left open; the verdicts then, and what is to be said of it."""
    context = outcome.context
    left = [one for one in verdicts.blocks.values() if _is_open(outcome, one)]
    kinked = [one.block.name for one in verdicts.blocks.values() if _only_at_kinks(outcome, one)]
    if not left + kinked or context.settings.unchecked == "allow" or context.run.stopped is not None:
        return verdicts, ()
    rng = np.random.default_rng((context.seed, len(left)))
    decided = {}
    if context.noise.relative <= thresholds.NO_DIGITS:  # else no move says anything
        constant = _constant(context, left, rng)
        decided = {one.block.name: replace(one, verdict=Verdict.CORRECT, constant=True) for one in constant}
    names = [one.block.name for one in left if one.block.name not in decided] + kinked
    if callable(context.gradient) and (context.noise.relative <= thresholds.IMPRECISE or context.noise.stationary):
        for keep, size in thresholds.NEARBY:
            if not names or context.run.over():
                break
            found = _nearby(context, names, _away(context, keep, size, rng))
            decided |= {name: one for name, one in found.items() if one.verdict.passed or name not in kinked}
            names = [name for name in names if name not in found]
    if not decided:
        return verdicts, ()
    return judge(outcome, decided), tuple(_said(decided))


def _is_open(outcome: Outcome, one: Judged) -> bool:
    """Say whether a block was measured, but theta is no place to check it."""
    if one.verdict is not Verdict.INCONCLUSIVE or not one.block.size:
        return False
    if one.doubtful:
        return outcome.context.noise.stationary
    if one.screened is not None:
        return bool(one.screened.probes) and one.inconclusive
    if one.compared is None:
        return False
    found = next(found for found in outcome.estimates if found.block is one.block)
    status = {estimate.status for estimate in found.looks.values()}
    at_kinks = Status.KINK in status and one.compared.missing > 0
    return (one.inconclusive and bool(one.compared.norms.count) and not one.compared.missing) or at_kinks


def _only_at_kinks(outcome: Outcome, one: Judged) -> bool:
    """Say whether all that speaks against a block is at kinks: its wrong coordinates, or some of its directions."""
    if not one.verdict.refuted:
        return False
    wrong = [] if one.compared is None else one.compared.wrong.tolist()
    looks = next((found.looks for found in outcome.estimates if found.block is one.block), {})
    along = one.screened is not None and any(probe.state is State.KINK for probe in one.screened.probes)
    at_kinks = (place in looks and looks[place].status is Status.KINK for place in wrong)
    return all(at_kinks) if wrong else along


def _constant(context: Context, left: Sequence[Judged], rng: np.random.Generator) -> Iterator[Judged]:
    """Yield the blocks that move J by no more than its noise, however far and wherever they move."""
    scales = scale_of_blocks(context.evaluator)
    moves = {}
    for one in left:
        move = scales[context.layout.number(one.block)] * rng.standard_normal(one.block.size)
        if abs(float(context.analytic.flat[one.block.slice] @ move)) <= 2 * context.loss_error:
            moves[one.block] = move
    for block in _meaningful(context, list(moves)):
        del moves[block]
    for keep, size in thresholds.ELSEWHERE:
        if not moves:
            return
        point = _away(context, keep, size, rng)
        here = context.base if not point.any() else float(context.evaluator.along(0, point, np.ones(1))[0])
        if np.isfinite(here):  # else it overflows there, and tells nothing
            unit = size if keep == 0 else 1.0
            # Near theta the noise is that at theta; far away J may be noisier, which is asked where it decides.
            scatter = cache(partial(_scatter, context, point, here)) if keep == 0 else float
            kept = [block for block, move in moves.items() if _keeps(context, point, here, block, unit * move, scatter)]
            moves = {block: moves[block] for block in kept}
    yield from (one for one in left if one.block in moves)


def _meaningful(context: Context, blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks whose gradient is neither zero nor what rounding leaves of it, but a small number.

    Where terms cancel, what is left are a few last bits of them: it has few digits itself, and another step, however
    small, leaves others.
    """
    g = context.analytic.flat
    doubtful = [block for block in blocks if not np.array_equal(g[block.slice], g[block.slice].astype(np.float32))]
    if not doubtful or not callable(context.gradient):
        return doubtful
    near = np.nextafter(context.theta, np.inf) * (1 + JOG)
    try:
        tree = context.evaluator.tree_of(near)
        other = match_gradient(context.gradient(tree, *context.args), context.layout).flat
    except Exception:  # whatever the user's function raises there
        return doubtful
    moved = {block: np.linalg.norm(other[block.slice] - g[block.slice]) for block in doubtful}
    return [block for block in doubtful if not moved[block] > CHANGED * np.linalg.norm(g[block.slice])]


def _keeps(
    context: Context, point: FloatArray, here: float, block: Block, move: FloatArray, scatter: Callable[[], float]
) -> bool:
    """Say whether J at theta + point, where it is `here`, stays there when a block moves, as far as its noise tells."""
    allowed = 2 * context.loss_error * max(1.0, abs(here) / max(abs(context.base), 1e-300))
    for far in thresholds.FAR:
        moved = point.copy()
        moved[block.slice] += far * move
        there = float(context.evaluator.along(0, moved, np.ones(1))[0])
        moved_by = abs(there - here) / (1 + abs(far))
        if not moved_by <= allowed and not moved_by <= scatter():
            return False
    return True


def _scatter(context: Context, point: FloatArray, here: float) -> float:
    """Return what the rounding of theta + point makes of J there, at most."""
    rng, values = np.random.default_rng(context.seed), []
    for _ in range(JOGS):
        jogged = (context.theta + point) * (1 + JOGGED * rng.uniform(-1, 1, context.theta.size)) - context.theta
        values.append(float(context.evaluator.along(0, jogged, np.ones(1))[0]))
    return thresholds.SAFETY * context.judge.z * max(abs(value - here) for value in values)


def _away(context: Context, keep: float, size: float, rng: np.random.Generator) -> FloatArray:
    """Return the way to a point that keeps a share of theta and adds a random move, in units of the magnitudes."""
    move: FloatArray = size * rng.standard_normal(context.theta.size)
    scale_by_magnitudes(context.evaluator, move)
    return move if keep == 1 else move - (1 - keep) * context.theta


def _nearby(context: Context, names: Sequence[str], way: FloatArray) -> dict[str, Judged]:
    """Check some blocks at a generic point; return those that are decided there."""
    layout = context.layout
    theta = context.theta + way
    theta = layout.flatten(layout.astype_user(theta))
    settings = replace(context.settings, blocks=tuple(names), checkpoint=None)
    run, saved = context.run, context.run.checkpoint
    run.checkpoint = None
    try:
        there = prepared(context.loss, context.gradient, context.args, settings, run, layout, theta)
        if there.preflight.fatal:
            return {}
        same = there.analytic.flat
        if same.any() and np.array_equal(same, context.analytic.flat):
            return {}  # it is no function of its params (lambda p: grads), and tells nothing of there
        there = replace(there, replay=context.replay)
        outcome = strategy_for(there)(there)
    except (InputError, LossError, OutOfBudget):  # the loss has no value there, or there is no time
        return {}
    finally:
        run.checkpoint = saved
    verdicts = judge(outcome)
    context.evaluator.evaluations += there.evaluator.evaluations
    sure = {name: one for name, one in verdicts.blocks.items() if one.verdict is not Verdict.INCONCLUSIVE}
    return {name: replace(one, at=outcome) for name, one in sure.items() if run.stopped is None}


def _said(decided: dict[str, Judged]) -> Iterator[Finding]:
    constant = [name for name, one in decided.items() if one.constant]
    nearby = [name for name, one in decided.items() if one.at is not None]
    if constant:
        yield Finding(
            Kind.CONSTANT,
            constant[0] if len(constant) == 1 else None,
            f"The loss does not depend on {first_of(constant, NAMED)}, however far moved, here or around, so the "
            "gradient of zero is right. A bias that a normalisation takes out again, or a block that is not used?",
            {"constant": constant},
        )
    if nearby:
        yield Finding(
            Kind.ELSEWHERE,
            nearby[0] if len(nearby) == 1 else None,
            f"At theta itself the gradient of {first_of(nearby, NAMED)} is zero, below the noise or at kinks (weights "
            "of zero, dead or saturated units?), so it was checked at a generic point nearby, and its numbers are from "
            "there.",
            {"nearby": nearby},
        )
