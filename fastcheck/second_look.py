"""A second look at one coordinate: central differences down a ladder of steps, and what they agree on.

Nothing is called wrong on the strength of a single difference quotient. Down the ladder a smooth loss shows
truncation that falls with the square of the step and then rounding that grows with its inverse; a kink shows one-sided
slopes that stay apart; a jump shows a quotient that grows with the inverse of the step.

Source of the extrapolation and its error estimate: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)",
Adv. Eng. Software 4 (1982) 75-76; the reading of the one-sided slopes follows from Taylor's theorem.
"""

from __future__ import annotations

import math

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.differences import Resolved, Status
from fastcheck.losses.evaluator import Evaluator
from fastcheck.run import Run
from fastcheck.steps import GRAIN, lost_to_rounding, rounds

__all__ = ["LADDER", "look_again", "look_along", "resolve"]

LADDER = tuple(8.0 * 8.0**-k for k in range(8))  # in units of the first step: from 8 h down to 4e-6 h
LONG_LADDER = tuple(64.0 * 4.0**-k for k in range(12))  # wider and finer: a whole block is worth it
SAFETY = 2.0  # on truncation taken from changes between steps
SMOOTHLY = 0.02  # relative; kinks crossed one by one scatter by more
PROMISE = 8.0  # on truncation extrapolated from changes that fell like the square of the step


def resolve(
    ahead: FloatArray, behind: FloatArray, plus: FloatArray, minus: FloatArray, base: float, loss_error: float
) -> Resolved:
    """Read a ladder of losses around one coordinate.

    Parameters
    ----------
    ahead, behind : float64, shape (K,)
        Achieved steps to either side, falling.
    plus, minus : float64, shape (K,)
        J at theta plus and minus each step; NaN where the loss failed.
    base : float
        J(theta).
    loss_error : float
        Largest error of one loss value, at the run's confidence.

    Returns
    -------
    Resolved
    """
    # A step may round to nothing beside a large theta, and the loss may have no value at a far one.
    fine = np.isfinite(plus) & np.isfinite(minus) & (ahead > 0) & (behind > 0)
    ahead, behind, plus, minus = ahead[fine], behind[fine], plus[fine], minus[fine]
    if len(ahead) < 3:
        return Resolved(math.nan, math.inf, 0.0, math.nan, math.nan, Status.UNRESOLVED)
    central = (plus - minus) / (ahead + behind)
    right, left = (plus - base) / ahead, (base - minus) / behind
    rounding = 2 * loss_error / (ahead + behind)
    ratio = float(ahead[0] / ahead[1])
    gap = right - left  # f'' h where J is smooth; constant at a kink
    if _is_jump(plus, minus, base, loss_error):
        return Resolved(math.nan, math.inf, 0.0, float(left[-1]), float(right[-1]), Status.JUMP)
    if _has_kink(gap, rounding):
        return _at_kink(left, right, rounding)
    value, rounded, truncated, rung = _best_pair(central, gap, rounding, ratio)
    crossed = _crossed(np.abs(central - value), rounding + rounded + truncated, rung, ratio)
    status = Status.CROSSED if crossed else Status.SMOOTH
    return Resolved(value, rounded, truncated, float(left[rung]), float(right[rung]), status)


def _crossed(error: FloatArray, explained: FloatArray, rung: int, ratio: float) -> bool:
    """Say whether the longer steps failed by a kink: truncation would fall with the square of the step."""
    for k in range(min(rung, 3)):
        if error[k] > 4 * explained[k]:
            fell = error[k] / max(error[k + 1], 1e-300)
            following = error[k + 1] > 4 * explained[k + 1]
            if following and not 0.25 * ratio**2 < fell < 4 * ratio**2:
                return True
    return False


def _best_pair(
    central: FloatArray, gap: FloatArray, rounding: FloatArray, ratio: float
) -> tuple[float, float, float, int]:
    """Return the value, its rounding and truncation uncertainty, and its rung: the smallest total uncertainty.

    What is left of the truncation at a rung is taken from the changes to the rungs above *and* below it. The change
    from above alone would do for a smooth loss, but with kinks at every scale two rungs can agree by luck and both be
    off; the rung below then tells, as far as its own, larger noise lets it (the principle of Lepskii 1991: trust the
    longest step that no shorter one contradicts). Where J bends to one side, at kinks or not, half of the gap between
    the one-sided slopes bounds the error too. Only changes that fell like the square of the step promise the next one:
    a kink crossed by a longer step breaks that pattern, and so never earns the promise. One-sided slopes that do not
    close up as the step shrinks leave the derivative open between them.
    """
    change = np.abs(np.diff(central))
    best = (math.nan, math.inf, 0.0, len(central) - 1)
    for k in range(1, len(central) - 1):
        truncation = SAFETY * float(max(change[k - 1], change[k], rounding[k + 1]))
        if not _closes_smoothly(gap[k - 1 : k + 2], rounding[k + 1], ratio):
            truncation = max(truncation, 0.5 * float(abs(gap[k])))
        truncation = min(truncation, _promised(change[:k], rounding, ratio))
        if _stays_open(gap, rounding, ratio, k) or _stays_open(gap, rounding, ratio, k + 1):
            truncation += 0.5 * float(abs(gap[k]))
        # Steps far longer than an oscillation agree with each other; any shorter one that contradicts them counts.
        contradicted = float(np.max(np.abs(central[k + 1 :] - central[k]) - rounding[k + 1 :]))
        truncation = max(truncation, SAFETY * contradicted)
        if rounding[k] + truncation < best[1] + best[2]:
            best = (float(central[k]), float(rounding[k]), truncation, k)
    return best


def _promised(change: FloatArray, rounding: FloatArray, ratio: float) -> float:
    """Return the truncation after the last of some changes, if they fell like the square of the step; else infinity.

    Changes clear of the noise must have fallen so, by a factor of 64 in all; those after them must lie below what that
    promises, or in the noise.
    """
    noise = rounding[:-1] + rounding[1:]
    falls = max(1, round(math.log(64) / math.log(ratio**2)))
    for j in range(len(change) - 1, falls - 1, -1):
        fell = (
            change[j - falls : j] / change[j - falls + 1 : j + 1]
            if np.all(change[j - falls : j + 1] > 0)
            else np.zeros(1)
        )
        if change[j] > noise[j] and np.all((0.5 * ratio**2 < fell) & (fell < 2 * ratio**2)):
            later = np.arange(j + 1, len(change))
            expected = change[j] / ratio ** (2 * (later - j))
            if np.all(change[later] <= 2 * expected + noise[later]):
                return PROMISE * float(change[j] / ratio ** (2 * (len(change) - j)))
    return math.inf


def _closes_smoothly(gap: FloatArray, rounding: float, ratio: float) -> bool:
    """Say whether the one-sided slopes close up in proportion to the step, clear of the noise, as f'' h does."""
    if abs(gap[2]) < 4 * rounding / SMOOTHLY or not gap[:-1].all():
        return False
    return bool(np.all(np.abs(gap[1:] * ratio / gap[:-1] - 1) < SMOOTHLY))


def _stays_open(gap: FloatArray, rounding: FloatArray, ratio: float, k: int) -> bool:
    """Say whether the one-sided slopes did not close up from rung k - 1 to rung k as those of a smooth loss do."""
    return bool(abs(gap[k]) > 2 / ratio * abs(gap[k - 1]) + 4 * rounding[k])


def _has_kink(gap: FloatArray, rounding: FloatArray) -> bool:
    """Say whether the gap between the one-sided slopes stays as the step shrinks.

    In a smooth J the gap falls by the ratio from rung to rung; at a kink in theta it stays. The three smallest rungs
    that stand clear of the noise decide.
    """
    clear = np.flatnonzero(np.abs(gap) > 8 * rounding)
    if len(clear) < 3 or np.any(np.diff(clear[-3:]) != 1):
        return False
    a, b, c = np.abs(gap[clear[-3:]])
    return bool(c > 0.6 * b and b > 0.6 * a and c < 1.7 * b and b < 1.7 * a)


def _at_kink(left: FloatArray, right: FloatArray, rounding: FloatArray) -> Resolved:
    """Return the slopes to both sides from the rung where their drift and their rounding are smallest together."""
    drift = np.maximum(np.abs(np.diff(left)), np.abs(np.diff(right)))
    rung = 1 + int(np.argmin(2 * rounding[1:] + SAFETY * drift))
    slopes = (float(left[rung]), float(right[rung]))
    middle = 0.5 * (slopes[0] + slopes[1])
    return Resolved(middle, 2 * float(rounding[rung]), SAFETY * float(drift[rung - 1]), *slopes, Status.KINK)


def _is_jump(plus: FloatArray, minus: FloatArray, base: float, loss_error: float) -> bool:
    """Say whether J changes by the same amount however small the step."""
    for side in (plus - base, minus - base, plus - minus):
        last = np.abs(side[-4:])
        if len(last) >= 3 and last[-1] > 32 * loss_error and last.max() < 1.5 * last.min():
            return True
    return False


def look_again(
    run: Run, evaluator: Evaluator, base: float, coordinates: IntArray, steps: FloatArray, loss_error: float
) -> list[Resolved]:
    """Measure some coordinates again down the ladder; 16 evaluations each.

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

    Returns
    -------
    list of Resolved
        Of the coordinates whose ladder was done, from the first.
    """
    first = np.exp2(np.round(np.log2(steps)))  # powers of two: theta + h is then exact, but where it crosses a binade
    h = np.outer(first, LADDER).ravel()
    places = np.repeat(coordinates, len(LADDER))
    pair, reached = np.empty((len(h), 2)), 0
    for rows, values in run.grid(evaluator, places, h, (1.0, -1.0)):
        pair[rows], reached = values, rows.stop
    at = evaluator.theta[places]
    ahead, behind = evaluator.represent(places, at + h) - at, at - evaluator.represent(places, at - h)
    if rounds(evaluator):  # a step of a few spacings is too uneven for a ladder
        ahead[lost_to_rounding(evaluator, places, h) > GRAIN] = 0.0
    ladders = (slice(k, k + len(LADDER)) for k in range(0, reached - reached % len(LADDER), len(LADDER)))
    return [resolve(ahead[k], behind[k], pair[k, 0], pair[k, 1], base, loss_error) for k in ladders]


def _lost_along(evaluator: Evaluator, places: IntArray, direction: FloatArray, steps: FloatArray) -> FloatArray:
    """Return the share of each step along a direction, shape (k,), that rounding theta adds or takes."""
    at, length = evaluator.theta[places], np.linalg.norm(direction)
    lost = [np.linalg.norm(evaluator.represent(places, at + t * direction) - at - t * direction) for t in steps]
    share: FloatArray = np.array(lost) / (np.abs(steps) * length)
    return share


def look_along(
    evaluator: Evaluator, base: float, start: int, direction: FloatArray, step: float, loss_error: float
) -> Resolved:
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
    if rounds(evaluator):
        places = np.arange(start, start + len(direction))
        values[_lost_along(evaluator, places, direction, np.concatenate([steps, -steps])) > GRAIN] = math.nan
    return resolve(steps, steps, values[: len(steps)], values[len(steps) :], base, loss_error)
