"""A second look: losses up and down a ladder of steps, at one coordinate or along one direction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Estimate, Status
from fastcheck.losses.evaluator import Evaluator
from fastcheck.measure.ladder import resolve
from fastcheck.measure.steps import GRAIN, is_low_precision, step_quantisation, within_scale
from fastcheck.run import Run

__all__ = ["LADDER", "look_again", "look_along"]

RUNG = 8.0  # between two steps of the ladder
LADDER = tuple(RUNG**-k for k in range(-1, 7))  # in units of the first step: from 8 h down to 4e-6 h
UP = tuple(RUNG**k for k in (5, 4, 3, 2))  # above the ladder, where nothing on it told enough
DOWN = tuple(RUNG**-k for k in range(7, 15))  # below it, down to the spacing of theta: no jump is believed before
SHORT = 2.0**-6  # of the longest step, that of half a parameter
LONG_LADDER = tuple(64.0 * 4.0**-k for k in range(12))  # wider and finer: a whole block is worth it


def look_again(
    run: Run,
    evaluator: Evaluator,
    base: float,
    coordinates: IntArray,
    steps: FloatArray,
    loss_error: float,
    wanted: FloatArray | None = None,
    reach: float = math.inf,
) -> list[Estimate]:
    """Measure some coordinates again down the ladder; 16 evaluations each, and 24 more where those told too little.

    Parameters
    ----------
    run : Run
        Evaluates, and may stop before the end.
    evaluator : Evaluator
        The loss.
    base : float
        J(theta).
    coordinates : int64, shape (m,)
        Places in theta.
    steps : float64, shape (m,)
        The step each was measured with at first.
    loss_error : float
        Largest error of one loss value, at the run's confidence.
    wanted : float64, shape (m,), optional
        Uncertainties that settle what is asked, where that is more than whether there is a derivative.
    reach : float
        A step down to which each ladder goes, because J is known to have a slope there.

    Returns
    -------
    list of Estimate
        Of the coordinates whose ladder was done, from the first.
    """
    first = np.exp2(np.round(np.log2(steps)))  # powers of two: theta + h is then exact, but where it crosses a binade
    rungs = _measured(run, evaluator, coordinates, first, LADDER)
    seen = [resolve(*one, base, loss_error) for one in rungs]
    # Longer steps than the pilots agreed upon are believed only where they are still short beside the parameters.
    room = within_scale(evaluator, coordinates, np.full(len(first), np.inf)) * SHORT
    wanted = np.full(len(first), np.inf) if wanted is None else wanted
    for further in (UP, DOWN):
        if further is UP:
            chosen = [k for k, one in enumerate(seen) if _is_vague(one, wanted[k]) and first[k] * UP[-1] <= room[k]]
        else:
            chosen = [k for k, one in enumerate(seen) if _is_shallow(one) or reach < LADDER[-1] * first[k]]
            if not any(_is_shallow(one) for one in seen):
                further = tuple(down for down in DOWN if RUNG * down * first.max() > reach)
        more = _measured(run, evaluator, coordinates[chosen], first[chosen], further) if chosen else []
        for k, others in zip(chosen, more, strict=False):
            others[0][others[0] > room[k]] = 0.0
            order = (others, rungs[k]) if further is UP else (rungs[k], others)
            rungs[k] = tuple(np.concatenate(pair) for pair in zip(*order, strict=True))  # type: ignore[assignment]
            before, seen[k] = seen[k].status, resolve(*rungs[k], base, loss_error)
            if further is UP and before is Status.SMOOTH and seen[k].status is Status.CROSSED:
                seen[k] = replace(seen[k], status=before)  # what only longer steps crossed, the first one did not
    for place, ladder in zip(coordinates.tolist(), rungs, strict=False):
        run.keep(evaluator, place, ladder)
    # A parameter below its whole ladder may live on a scale of its own, and J turn many times over at every step.
    own = np.abs(evaluator.theta[coordinates[: len(seen)]])
    small = np.flatnonzero((own > 0) & (own < LADDER[-1] * first[: len(seen)]))
    if small.size:
        closer = look_again(run, evaluator, base, coordinates[small], own[small] / LADDER[0], loss_error, wanted[small])
        for k, one in zip(small.tolist(), closer, strict=False):
            seen[k] = _better(seen[k], one)
    return seen


def _better(longer: Estimate, shorter: Estimate) -> Estimate:
    """Return the measurement by shorter steps, unless it is the less certain one and does not contradict the other."""
    apart = abs(longer.value - shorter.value)
    same = apart <= longer.uncertainty + shorter.uncertainty and longer.uncertainty <= shorter.uncertainty
    return longer if same or math.isnan(shorter.value) else shorter


def _is_vague(seen: Estimate, wanted: float) -> bool:
    """Say whether longer steps could tell more: J did not move, or by too little beside its noise for what is asked."""
    enough = min(thresholds.RESOLUTION * abs(seen.value), wanted)
    return seen.status in (Status.SMOOTH, Status.UNRESOLVED) and not seen.uncertainty <= enough


def _is_shallow(seen: Estimate) -> bool:
    """Say whether shorter steps could tell more: what looks like a jump may be a change on a shorter scale."""
    return seen.status in (Status.JUMP, Status.UNRESOLVED)


def _measured(
    run: Run, evaluator: Evaluator, coordinates: IntArray, first: FloatArray, ladder: tuple[float, ...]
) -> list[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Return the achieved steps ahead and behind, and the losses there, of every coordinate that the run came to."""
    h = np.outer(first, ladder).ravel()
    places = np.repeat(coordinates, len(ladder))
    pair, reached = np.empty((len(h), 2)), 0
    for rows, values in run.grid(evaluator, places, h, (1.0, -1.0)):
        pair[rows], reached = values, rows.stop
    at = evaluator.theta[places]
    ahead, behind = evaluator.represent(places, at + h) - at, at - evaluator.represent(places, at - h)
    if is_low_precision(evaluator):  # a step of a few spacings is too uneven for a ladder
        ahead[step_quantisation(evaluator, places, h) > GRAIN] = 0.0
    done = (slice(k, k + len(ladder)) for k in range(0, reached - reached % len(ladder), len(ladder)))
    return [(ahead[k], behind[k], pair[k, 0], pair[k, 1]) for k in done]


def _lost_along(evaluator: Evaluator, places: IntArray, direction: FloatArray, steps: FloatArray) -> FloatArray:
    """Return the share of each step along a direction, shape (k,), that rounding theta adds or takes."""
    at, length = evaluator.theta[places], np.linalg.norm(direction)
    lost = [np.linalg.norm(evaluator.represent(places, at + t * direction) - at - t * direction) for t in steps]
    share: FloatArray = np.array(lost) / (np.abs(steps) * length)
    return share


def look_along(
    evaluator: Evaluator, base: float, start: int, direction: FloatArray, step: float, loss_error: float
) -> Estimate:
    """Measure the derivative along a direction down a longer ladder; 24 evaluations.

    Parameters
    ----------
    evaluator : Evaluator
        The loss.
    base : float
        J(theta).
    start : int
        First coordinate of the range that moves.
    direction : float64, shape (n,)
        The direction in that range.
    step : float
        The step that a single coordinate of the range was measured with.
    loss_error : float
        Largest error of one loss value, at the run's confidence.
    """
    steps = step * np.array(LONG_LADDER)
    values = evaluator.along(start, direction, np.concatenate([steps, -steps]))
    if is_low_precision(evaluator):
        places = np.arange(start, start + len(direction))
        values[_lost_along(evaluator, places, direction, np.concatenate([steps, -steps])) > GRAIN] = math.nan
    return resolve(steps, steps, values[: len(steps)], values[len(steps) :], base, loss_error)
