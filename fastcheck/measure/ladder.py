"""Reading a ladder of steps: what difference quotients at falling steps agree on, at a coordinate or along a direction.

Nothing is called wrong on the strength of a single difference quotient. Down the ladder a smooth loss shows
truncation that falls with the square of the step and then rounding that grows with its inverse; a kink shows one-sided
slopes that stay apart; a jump shows a quotient that grows with the inverse of the step.

Source of the extrapolation and its error estimate: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)",
Adv. Eng. Software 4 (1982) 75-76; the reading of the one-sided slopes follows from Taylor's theorem.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.estimates import UNRESOLVED, Estimate, Status, kinks_coincide

__all__ = ["Ladder", "Rung", "State", "agree", "doubtful", "resolve", "settled"]

APART = 2.0  # times as long is the next longer step at least, when theta has been rounded


@dataclass(frozen=True)
class Ladder:
    """Losses down a ladder of steps, and the quotients they make.

    `ahead` and `behind` are the achieved steps, falling; `plus`, `minus` and `base` the losses; `error` the largest
    error of those of each rung, at the run's confidence: far away J may be so large that it has no digits here.
    """

    ahead: FloatArray
    behind: FloatArray
    plus: FloatArray
    minus: FloatArray
    base: float
    error: FloatArray

    @classmethod
    def of(
        cls, ahead: FloatArray, behind: FloatArray, plus: FloatArray, minus: FloatArray, base: float, error: float
    ) -> Ladder:
        """Return the rungs that say something: a step may round to nothing, or to the one before, beside a large theta.

        And the loss may have no value at a far one.
        """
        fine = np.isfinite(plus) & np.isfinite(minus) & (ahead > 0) & (behind > 0)
        fine[1:] &= (ahead[1:] <= ahead[:-1] / APART) & (behind[1:] <= behind[:-1] / APART) | (ahead[:-1] <= 0)
        ahead, behind, plus, minus = ahead[fine], behind[fine], plus[fine], minus[fine]
        spacing = np.spacing(np.maximum(np.maximum(np.abs(plus), np.abs(minus)), abs(base)))  # none is known better
        return cls(ahead, behind, plus, minus, base, np.maximum(spacing, error))

    def __len__(self) -> int:
        return len(self.ahead)

    @cached_property
    def central(self) -> FloatArray:
        """The central difference quotient of every rung."""
        return np.asarray((self.plus - self.minus) / (self.ahead + self.behind))

    @cached_property
    def right(self) -> FloatArray:
        """The slope ahead."""
        return np.asarray((self.plus - self.base) / self.ahead)

    @cached_property
    def left(self) -> FloatArray:
        """The slope behind."""
        return np.asarray((self.base - self.minus) / self.behind)

    @cached_property
    def gap(self) -> FloatArray:
        """The right slope less the left: f'' h where J is smooth, constant at a kink."""
        return np.asarray(self.right - self.left)

    @property
    def rounding(self) -> FloatArray:
        """What the error of the losses makes of the central quotients, at most."""
        return np.asarray(2 * self.error / (self.ahead + self.behind))

    @property
    def ratio(self) -> float:
        """Of a step to the next shorter one."""
        return float(self.ahead[0] / self.ahead[1])

    @property
    def largest(self) -> float:
        """The largest |loss|."""
        return float(max(abs(self.base), np.abs(self.plus).max(), np.abs(self.minus).max()))

    def shown(self, k: int, truncation: float) -> float:
        """Return the error of a loss value that the shorter steps show, if the derivative of rung k is right.

        From it and the curvature there the losses below are predicted; what they miss beside its truncation is noise.
        A noise that was measured too small is so found out, where it decides.
        """
        below = slice(k + 1, None)
        bend = self.gap[k] / (self.ahead[k] + self.behind[k])
        up = self.base + self.central[k] * self.ahead[below] + bend * self.ahead[below] ** 2
        down = self.base - self.central[k] * self.behind[below] + bend * self.behind[below] ** 2
        missed = np.maximum(np.abs(self.plus[below] - up), np.abs(self.minus[below] - down))
        return float(np.max(missed - truncation * np.maximum(self.ahead[below], self.behind[below]), initial=0.0))

    def stairs(self) -> float:
        """Return the height of the stairs that this coordinate alone climbs; 0 where it climbs none.

        J has the same bits at the shortest steps and moves evenly to both sides at the longest: a part of it is
        rounded, though J as a whole has no grain. (A unit that is dead near theta moves J to one side.)
        """
        few, smoothly = thresholds.FLAT, thresholds.SMOOTHLY
        moved = np.maximum(np.abs(self.plus - self.base), np.abs(self.minus - self.base))
        flat = int(np.argmax(moved[::-1] > 0)) if moved.any() else 0
        if flat < few or len(self) - flat < few:
            return 0.0
        height = float(moved[moved > 0].min())
        allowed = 2 * height / np.minimum(self.ahead, self.behind)[:few]
        even = np.abs(self.gap[:few]) <= allowed + smoothly * np.abs(self.central[:few])
        steady = np.abs(np.diff(self.central[:few])) <= allowed[1:] + smoothly * np.abs(self.central[: few - 1])
        return height if bool(even.all() and steady.all()) else 0.0


def resolve(
    ahead: FloatArray, behind: FloatArray, plus: FloatArray, minus: FloatArray, base: float, loss_error: float
) -> Estimate:
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
    Estimate
    """
    ladder = Ladder.of(ahead, behind, plus, minus, base, loss_error)
    if len(ladder) < 3:
        return UNRESOLVED
    ladder = replace(ladder, error=np.maximum(ladder.error, ladder.stairs()))
    left, right = ladder.left, ladder.right
    if _is_jump(ladder):
        return Estimate(math.nan, math.inf, 0.0, float(left[-1]), float(right[-1]), Status.JUMP)
    moves, rung = _still_moves(ladder.central, ladder.rounding, ladder.ratio)
    # At a kink the slopes stay apart and their mean stays where it is; of a square root that ends at theta, neither.
    if _has_kink(ladder.gap, ladder.rounding) and not moves > thresholds.STILL * abs(ladder.gap[rung]):
        return _at_kink(ladder)
    if moves:
        return UNRESOLVED
    value, rounded, truncated, rung = _best_pair(ladder)
    flat = abs(value) <= thresholds.STANDS_OUT * (rounded + truncated)
    if flat and ladder.error[rung] > thresholds.OSCILLATION * ladder.largest:
        return UNRESOLVED  # J may turn many times over within each step
    explained = ladder.rounding + rounded + truncated
    crossed = _crossed(np.abs(ladder.central - value), explained, rung, ladder.ratio)
    status = Status.CROSSED if crossed else Status.SMOOTH
    return Estimate(value, rounded, truncated, float(left[rung]), float(right[rung]), status)


def _still_moves(central: FloatArray, rounding: FloatArray, ratio: float) -> tuple[float, int]:
    """Return the last change of the quotient that is clear of the rounding, and its rung; 0 if the quotient is settled.

    It is not where that change is hardly less than the one before, at the shortest step of all or as it has been for
    three rungs and the next is lost in the rounding: J varies on a shorter scale, or on every scale (a root, a
    logarithm). Truncation falls with the square of the step, and a kink nearby makes changes that grow as it falls.
    """
    change, still = np.abs(np.diff(central)), thresholds.STILL
    lost = thresholds.STANDS_OUT * (rounding[:-1] + rounding[1:])
    clear = np.flatnonzero(change > lost)
    if not len(clear) or not (k := int(clear[-1])) or change[k] < still * change[k - 1]:
        return 0.0, 0
    if k + 1 < len(change):
        fell = change[k - 1 : k + 1] / np.maximum(change[k - 2 : k], 1e-300) if k > 1 else np.array([math.inf])
        if lost[k + 1] < still * change[k] or not np.all((fell >= still) & (fell <= ratio / 2)):
            return 0.0, 0
    return float(change[k]), k + 1


def _crossed(error: FloatArray, explained: FloatArray, rung: int, ratio: float) -> bool:
    """Say whether the longer steps failed by a kink: truncation would fall with the square of the step."""
    like = thresholds.LIKE_SQUARE
    for k in range(min(rung, 3)):
        if error[k] > thresholds.STANDS_OUT * explained[k]:
            fell = error[k] / max(error[k + 1], 1e-300)
            following = error[k + 1] > thresholds.STANDS_OUT * explained[k + 1]
            if following and not ratio**2 / (2 * like) < fell < 2 * like * ratio**2:
                return True
    return False


def _best_pair(ladder: Ladder) -> tuple[float, float, float, int]:
    """Return the value, its rounding and truncation uncertainty, and its rung: the smallest total uncertainty.

    What is left of the truncation at a rung is taken from the changes to the rungs above *and* below it. The change
    from above alone would do for a smooth loss, but with kinks at every scale two rungs can agree by luck and both be
    off; the rungs below then tell, as far as their own, larger noise lets them (the principle of Lepskii 1991: trust
    the longest step that no shorter one contradicts). A kink closer to theta may hide in that noise, and is allowed
    for. Where J bends to one side, at kinks or not, half of the gap between the one-sided slopes bounds the error too.
    Only changes that fell like the square of the step promise the next one. One-sided slopes that do not close up as
    the step shrinks leave the derivative open between them. The noise is at least what the rungs below show of it.
    """
    central, gap, rounding, ratio = ladder.central, ladder.gap, ladder.rounding, ladder.ratio
    change = np.abs(np.diff(central))
    opens, half = _stay_open(gap, rounding, ratio), 0.5 * _widest_below(gap, rounding)
    best = (math.nan, math.inf, 0.0, len(central) - 1)
    total = thresholds.HIDDEN_KINKS * rounding
    for k in range(len(central) - 2, 0, -1):
        steady = thresholds.TRUNCATION * max(change[k - 1], change[k])
        truncation = float(max(steady, thresholds.HIDDEN_KINKS * rounding[k]))
        if not _closes_smoothly(gap[k - 1 : k + 2], rounding[k + 1], ratio):
            truncation = max(truncation, float(half[k]))
        # Where a shorter step contradicts this one, it is off by as much, and by what that one may be off.
        apart = np.abs(central[k + 1 :] - central[k])
        against = np.flatnonzero(apart > rounding[k] + rounding[k + 1 :])
        if len(against):
            truncation = max(truncation, float(apart[against[0]] + total[k + 1 + against[0]]))
        truncation = min(truncation, _promised(change, opens[: k + 2], rounding, ratio, k))
        if opens[k] or opens[k + 1]:
            truncation += float(half[k])
        # Steps far longer than an oscillation agree with each other; any shorter one that contradicts them counts.
        truncation = max(truncation, thresholds.TRUNCATION * float(np.max(apart - rounding[k + 1 :])))
        rounded = float(2 * max(ladder.error[k], ladder.shown(k, truncation)) / (ladder.ahead[k] + ladder.behind[k]))
        total[k] = rounded + truncation
        if total[k] <= best[1] + best[2]:
            best = (float(central[k]), rounded, truncation, k)
    return best


def _promised(change: FloatArray, opens: NDArray[np.bool_], rounding: FloatArray, ratio: float, k: int) -> float:
    """Return the truncation at rung k, if the changes down to it fell like the square of the step; else infinity.

    Changes clear of the noise must have fallen so, by a factor of 64 squared in all: with kinks at every scale one
    change may well be the 64th part of another. Those after them, also below rung k, must lie below what that promises,
    or in the noise, and the one-sided slopes must have closed up all the way.
    """
    noise, like = rounding[:-1] + rounding[1:], thresholds.LIKE_SQUARE
    falls = max(2, round(math.log(thresholds.FALLEN) / math.log(ratio**2)))
    for j in range(k - 1, falls - 1, -1):
        if not np.all(change[j - falls : j + 1] > 0) or opens[j - falls + 1 :].any():
            continue
        fell = change[j - falls : j] / change[j - falls + 1 : j + 1]
        if change[j] > noise[j] and np.all((ratio**2 / like < fell) & (fell < like * ratio**2)):
            later = np.arange(j + 1, len(change))
            expected = change[j] / ratio ** (2 * (later - j))
            if np.all(change[later] <= like * expected + noise[later]):
                return thresholds.PROMISE * float(change[j] / ratio ** (2 * (k - j)))
    return math.inf


def _closes_smoothly(gap: FloatArray, rounding: float, ratio: float) -> bool:
    """Say whether the one-sided slopes close up in proportion to the step, clear of the noise, as f'' h does."""
    if abs(gap[2]) < thresholds.STANDS_OUT * rounding / thresholds.SMOOTHLY or not gap[:-1].all():
        return False
    return bool(np.all(np.abs(gap[1:] * ratio / gap[:-1] - 1) < thresholds.SMOOTHLY))


def _widest_below(gap: FloatArray, rounding: FloatArray) -> FloatArray:
    """Return for every rung the widest gap of it and of those below that stand clear of the noise.

    Where a kink in theta and the curvature cancel, the gap of one rung is less than what the kink leaves.
    """
    clear = np.where(np.abs(gap) > thresholds.STANDS_OUT * rounding, np.abs(gap), 0.0)
    return np.maximum(np.abs(gap), np.maximum.accumulate(clear[::-1])[::-1])


def _stay_open(gap: FloatArray, rounding: FloatArray, ratio: float) -> NDArray[np.bool_]:
    """Say of every rung whether the one-sided slopes did not close up from the one before as those of a smooth loss."""
    opens = np.zeros(len(gap), dtype=bool)
    opens[1:] = np.abs(gap[1:]) > thresholds.OPENS / ratio * np.abs(gap[:-1]) + thresholds.STANDS_OUT * rounding[1:]
    return opens


def _has_kink(gap: FloatArray, rounding: FloatArray) -> bool:
    """Say whether the gap between the one-sided slopes stays as the step shrinks.

    In a smooth J the gap falls by the ratio from rung to rung; at a kink in theta it stays. The three smallest rungs
    that stand clear of the noise decide, and none below them may show, as far as its noise lets it, that the gap
    closes: then the kink is near theta and not there.
    """
    clear = np.flatnonzero(np.abs(gap) > 2 * thresholds.STANDS_OUT * rounding)
    if len(clear) < 3 or np.any(np.diff(clear[-3:]) != 1):
        return False
    a, b, c = np.abs(gap[clear[-3:]])
    below = slice(int(clear[-1]) + 1, None)
    closes = np.any(np.abs(gap[below]) + thresholds.STANDS_OUT * rounding[below] < 0.5 * c)
    stays = thresholds.STAYS
    return bool(b < stays * c and a < stays * b and c < stays * b and b < stays * a and not closes)


def _at_kink(ladder: Ladder) -> Estimate:
    """Return the slopes to both sides: the limits of the one-sided quotients, where they are known best.

    A one-sided quotient is off by f'' h / 2. Two of them leave their limit, and the change from one limit to the next
    bounds what is left.
    """

    def limits(slope: FloatArray, h: FloatArray) -> FloatArray:
        return np.asarray(slope[1:] + np.diff(slope) * h[1:] / (h[:-1] - h[1:]))

    left, right = limits(ladder.left, ladder.behind), limits(ladder.right, ladder.ahead)
    drift = np.maximum(np.abs(np.diff(left)), np.abs(np.diff(right)))
    rounding = 2 * (1 + 2 / (ladder.ratio - 1)) * ladder.rounding[2:]
    rung = int(np.argmin(rounding + thresholds.TRUNCATION * drift))
    slopes = (float(left[rung + 1]), float(right[rung + 1]))
    middle = 0.5 * (slopes[0] + slopes[1])
    return Estimate(middle, float(rounding[rung]), thresholds.TRUNCATION * float(drift[rung]), *slopes, Status.KINK)


def _is_jump(ladder: Ladder) -> bool:
    """Say whether J changes by the same amount however small the step."""
    plus, minus, base = ladder.plus, ladder.minus, ladder.base
    believed = thresholds.JUMPS * float(ladder.error[-4:].max())
    for side in (plus - base, minus - base, plus - minus):
        last = np.abs(side[-4:])
        if len(last) >= 3 and last[-1] > believed and last.max() < thresholds.EVEN * last.min():
            return True
    return False


# -- a ladder that is read while it is climbed down, along a direction ------------------------------------------------


class State(enum.Enum):
    """What a probe came to."""

    CLEAN = "clean"  # the residual is within its noise
    REPEATED = "repeated"  # it stands out, and another step gave the same
    KINK = "kink"  # it stands out, but theta itself is at a kink, whose two slopes explain it
    UNSETTLED = "unsettled"  # no two steps agree


@dataclass(frozen=True)
class Rung:
    """One step along a direction: the measured slope, the analytic one minus it, and how well both are known."""

    step: float
    slope: float
    residual: float
    uncertainty: float
    gap: float  # half the difference of the two one-sided slopes: falls with the step where J is smooth


def settled(rungs: list[Rung]) -> tuple[Rung, State] | None:
    """Return the rung to believe and why, or None where a shorter step is needed."""
    last = rungs[-1]
    if abs(last.residual) <= last.uncertainty:
        return last, State.CLEAN
    if len(rungs) < 2:
        return None
    above = rungs[-2]
    extrapolated = _extrapolated(above, last)
    if abs(extrapolated.residual) <= extrapolated.uncertainty:
        return extrapolated, State.CLEAN
    if agree(above, last):
        return doubtful(above, last), _kink_or(above, last)
    if len(rungs) > 2:
        before = _extrapolated(rungs[-3], above)
        if agree(before, extrapolated):
            return doubtful(extrapolated, before), _kink_or(above, last)
    return None


def doubtful(rung: Rung, other: Rung) -> Rung:
    """Return a rung whose uncertainty includes how far another one is from it: what is left of truncation and kinks."""
    return replace(rung, uncertainty=rung.uncertainty + abs(rung.residual - other.residual))


def agree(a: Rung, b: Rung) -> bool:
    """Say whether two steps give one residual, and the loss between them looks like one that has a derivative.

    The one-sided slopes close up as the step shrinks, or stay apart at a kink. Where they open, the loss jumps, or
    changes on a scale much shorter than the step: then two equal quotients mean nothing.
    """
    longer, shorter = (a, b) if a.step > b.step else (b, a)
    noise = a.uncertainty + b.uncertainty
    return abs(a.residual - b.residual) <= noise and abs(shorter.gap) <= thresholds.OPENS * abs(longer.gap) + noise


def _extrapolated(longer: Rung, shorter: Rung) -> Rung:
    """Return Richardson's extrapolation, free of the error that falls with the square of the step."""
    weight = 1 / ((longer.step / shorter.step) ** 2 - 1)
    slope = shorter.slope + weight * (shorter.slope - longer.slope)
    residual = shorter.residual + weight * (shorter.residual - longer.residual)
    uncertainty = (1 + weight) * shorter.uncertainty + weight * longer.uncertainty
    return Rung(shorter.step, slope, residual, uncertainty, shorter.gap)


def _kink_or(longer: Rung, shorter: Rung) -> State:
    """Tell an error from a kink at theta: there the two one-sided slopes stay apart however short the step."""
    apart = abs(shorter.gap) > 2 * shorter.uncertainty and thresholds.STAYS * abs(shorter.gap) > abs(longer.gap)
    left, right = shorter.slope - shorter.gap, shorter.slope + shorter.gap
    bent = abs(shorter.gap) > thresholds.COINCIDE * abs(shorter.slope)
    coincide = bent and kinks_coincide(shorter.slope + shorter.residual, left, right)
    explained = coincide or abs(shorter.residual) < thresholds.STANDS_OUT * abs(shorter.gap)
    return State.KINK if apart and explained else State.REPEATED
