"""The step of every coordinate: as long as truncation and kinks allow, so that the noise of J is divided by much.

The best central step balances noise/h against f''' h^2/6 (Gill, Murray, Saunders, Wright 1983, "Computing
forward-difference intervals for numerical optimization", SIAM J. Sci. Stat. Comput. 4, section 2). The third
derivative is not known; a pilot measures a few coordinates of each block up a ladder of steps and stops where the
quotients begin to differ by more than the noise explains.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Scheme
from fastcheck.losses.evaluator import Evaluator
from fastcheck.measure.noise import FEW, Noise, Sizes, scale_of_blocks, uneven

__all__ = ["GRAIN", "Steps", "choose_steps", "fixed_steps", "is_low_precision", "rough", "step_quantisation", "unit_of"]

PILOT_Z = 1.5  # standard deviations, with the safety on them, by which pilots may differ and agree
PILOTS = 3  # coordinates of a block,
EACH = 16  # one of them for so many, where the gradient tells which and the loss has all its digits
RUNG = 16.0  # between two steps of the pilot's ladder
RUNGS = 6
LONGEST = 0.5  # step, in units of the parameters
GRAIN = 1 / 16  # share of a step that rounding theta may add or take
ROUNDINGS = 64.0  # unit roundoffs that the noise of a loss in low precision may be, to come from them
LONGER = 48  # doublings of a step that a low precision may ask for
VAGUE = 1e-6  # noise of a quotient, relative to the derivative, above which a step between two rungs is tried as well
BELOW_CONSISTENT = 4.0  # the step taken is this much below the longest consistent one


@dataclass(frozen=True)
class Steps:
    """Steps and their truncation, by block.

    Attributes
    ----------
    per_block : float64, shape (blocks,)
        The step of a coordinate; where `relative` is set it is in units of the coordinate's size, as `sizes` tells it.
    truncation : float64, shape (blocks,)
        Largest truncation error that the pilot leaves possible, in units of the derivative; where `relative` is set,
        times the coordinate's size.
    relative : bool, shape (blocks,)
        The block's entries differ by orders of magnitude: each is stepped in proportion to its own size.
    exact : bool
        Divide by the achieved step; otherwise (the user named the step) by the named one, as the textbook does.
    own : mapping of int to (float, float)
        Step and truncation of coordinates that have their own, by place in theta.
    sizes : mapping of int to Sizes
        Of the blocks where `relative` is set, by number.
    gradient : float64, shape (P,)
        The analytic one, which the sizes need.
    """

    per_block: FloatArray
    truncation: FloatArray
    relative: np.ndarray[tuple[int], np.dtype[np.bool_]]
    exact: bool
    own: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[int, Sizes] = field(default_factory=dict)
    gradient: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)

    def _sizes(self, evaluator: Evaluator, coordinates: IntArray) -> FloatArray:
        """Return what the step of each coordinate is in units of, shape (m,): one where it is not relative."""
        block, sizes = _block_numbers(evaluator, coordinates), np.ones(len(coordinates))
        for number, of in self.sizes.items():
            rows = np.flatnonzero(block == number)
            places = coordinates[rows]
            sizes[rows] = of(evaluator.theta[places], self.gradient[places])
        return sizes

    def of(self, evaluator: Evaluator, coordinates: IntArray) -> FloatArray:
        """Return the step of each coordinate, shape (m,)."""
        block = _block_numbers(evaluator, coordinates)
        h = self.per_block[block]
        if self.relative.any():
            h = np.where(self.relative[block], _power_of_two(h * self._sizes(evaluator, coordinates)), h)
        for place, (step, _) in self.own.items():
            h[coordinates == place] = step
        return _representable(evaluator, coordinates, h)

    def are_relative(self, evaluator: Evaluator, coordinates: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Say of each coordinate, shape (m,), whether its block is stepped in proportion to the size of each entry."""
        return self.relative[_block_numbers(evaluator, coordinates)]

    def truncation_of(self, evaluator: Evaluator, coordinates: IntArray) -> FloatArray:
        """Return the truncation uncertainty of each coordinate, shape (m,)."""
        block = _block_numbers(evaluator, coordinates)
        left = np.asarray(self.truncation[block] / self._sizes(evaluator, coordinates))
        for place, (_, truncation) in self.own.items():
            left[coordinates == place] = truncation
        return left


def is_low_precision(evaluator: Evaluator) -> bool:
    """Say whether the loss is given parameters rounded to a lower precision than float64."""
    nothing = np.empty(0)
    return evaluator.represent(np.empty(0, np.int64), nothing) is not nothing


def unit_of(evaluator: Evaluator, number: int) -> float:
    """Return the unit roundoff of the parameters that the loss is given for a block."""
    dtype = evaluator.layout.blocks[number].dtype if is_low_precision(evaluator) else np.float64
    return float(max(np.finfo(dtype).eps, np.finfo(np.float64).eps))


def rough(evaluator: Evaluator, noise: Noise) -> bool:
    """Say whether a loss in low precision shows far more noise than its rounding: kinks, or chaos, at every scale."""
    if not is_low_precision(evaluator):
        return False
    eps = max(float(np.finfo(block.dtype).eps) for block in evaluator.layout.blocks)
    return noise.relative > ROUNDINGS * eps


def _representable(evaluator: Evaluator, coordinates: IntArray, steps: FloatArray) -> FloatArray:
    """Return the steps, in low precision made so long that theta moves by about as much to both sides.

    What it does move by is a multiple of the spacing there, and has to be asked of `Evaluator.represent`.
    """
    if not is_low_precision(evaluator):
        return steps
    for _ in range(LONGER):
        short = step_quantisation(evaluator, coordinates, steps) > GRAIN
        if not short.any():
            break
        steps = np.where(short, 2 * steps, steps)
    return steps


def step_quantisation(evaluator: Evaluator, coordinates: IntArray, steps: FloatArray) -> FloatArray:
    """Return the share of a step, shape (m,), that rounding theta plus and minus the step adds or takes."""
    at = evaluator.theta[coordinates]
    ahead = evaluator.represent(coordinates, at + steps) - at
    behind = at - evaluator.represent(coordinates, at - steps)
    return np.asarray(np.maximum(np.abs(ahead / steps - 1), np.abs(behind / steps - 1)))


def fixed_steps(evaluator: Evaluator, step: float) -> Steps:
    """Return the user's own step for every coordinate; its truncation is not known until a second look."""
    blocks = len(evaluator.layout.blocks)
    return Steps(np.full(blocks, step), np.zeros(blocks), np.zeros(blocks, dtype=bool), exact=False)


def within_scale(evaluator: Evaluator, coordinates: IntArray, steps: FloatArray) -> FloatArray:
    """Return the steps, shape (m,), none longer than its coordinate's scale: a user's step may be, for some."""
    block = _block_numbers(evaluator, coordinates)
    limits = scale_of_blocks(evaluator)[block]
    own = np.abs(evaluator.theta[coordinates])
    for number in np.unique(block):
        if uneven(evaluator.theta[evaluator.layout.blocks[number].slice]):
            limits = np.where((block == number) & (own > 0), own, limits)
    return np.minimum(steps, LONGEST * limits)


def choose_steps(
    evaluator: Evaluator,
    base: float,
    gradient: FloatArray,
    noise: Noise,
    scheme: Scheme,
    rng: np.random.Generator,
    selected: tuple[int, ...],
) -> Steps:
    """Choose the step of every selected block from the noise and a pilot; 8 to 25 evaluations a block.

    The analytic gradient, shape (P,), is there only to pick telling coordinates, and as a scale. Blocks that are not
    selected, by number, keep a nominal step.
    """
    blocks = evaluator.layout.blocks
    scales = scale_of_blocks(evaluator)
    own: dict[int, tuple[float, float]] = {}
    per_block, truncation = scales * 2.0**-20, np.zeros(len(blocks))
    relative = np.array([uneven(evaluator.theta[b.slice]) for b in blocks], dtype=bool)
    climbs, sizes = [], {}
    for number in selected:
        block = blocks[number]
        if relative[number]:
            sizes[number] = Sizes.of(evaluator.theta[block.slice], gradient[block.slice], float(scales[number]))
        if not block.size:
            continue
        each = relative[number] and block.size <= FEW  # quantities of their own units, each with its own scale
        offsets = np.arange(block.size) if each else _pilot_coordinates(gradient[block.slice], rng, noise)
        pilots = block.start + offsets
        unit = np.full(len(pilots), scales[number])
        if relative[number]:
            unit = sizes[number](evaluator.theta[pilots], gradient[pilots])
        swings = np.abs(gradient[pilots] * unit)
        for some in [slice(k, k + 1) for k in range(block.size)] if each else [slice(None)]:
            swing = max(abs(base), float(swings[some].max()), 1e-300)
            first = min(max((noise.typical / swing) ** (1 / (scheme.order + 1)), 2.0**-40), LONGEST / RUNG)
            rungs = _climb(unit[some].tolist(), first, noise, scheme)
            climbs.append(_Climb(number, each, pilots[some], unit[some], rungs))
    for climb, (h, left) in zip(climbs, _climbed(evaluator, climbs, scheme), strict=True):
        if climb.alone:
            own[int(climb.pilots[0])] = float(_power_of_two(h * climb.unit)[0]), left / float(climb.unit[0])
        per_block[climb.number], truncation[climb.number] = h, left
    climbed = [climb.number for climb in climbs]
    size = np.where(relative, 1.0, scales)[climbed]
    per_block[climbed] = _power_of_two(per_block[climbed] * size)
    truncation[climbed] /= size
    return Steps(per_block, truncation, relative, exact=True, own=own, sizes=sizes, gradient=gradient)


class _Climb(NamedTuple):
    """Pilots of a block, or one alone, that climb a ladder of steps, in units of `unit`; both of shape (pilots,)."""

    number: int
    alone: bool
    pilots: IntArray
    unit: FloatArray
    rungs: Generator[float, list[float], tuple[float, float]]


def _climbed(evaluator: Evaluator, climbs: Sequence[_Climb], scheme: Scheme) -> list[tuple[float, float]]:
    """Return what each climb does; on every rung the quotients of all that still climb are measured together."""
    ended: dict[int, tuple[float, float]] = {}
    asked = {k: next(climb.rungs) for k, climb in enumerate(climbs)}
    while asked:
        pilots = np.concatenate([climbs[k].pilots for k in asked])
        steps = np.concatenate([step * climbs[k].unit for k, step in asked.items()])
        quotients = iter(_quotients(evaluator, pilots, steps, scheme).tolist())
        for k in list(asked):
            try:
                asked[k] = climbs[k].rungs.send(list(islice(quotients, len(climbs[k].pilots))))
            except StopIteration as end:
                del asked[k]
                ended[k] = end.value
    return [ended[k] for k in range(len(climbs))]


def _climb(
    unit: list[float], first: float, noise: Noise, scheme: Scheme
) -> Generator[float, list[float], tuple[float, float]]:
    """Return the step, in units of `unit`, and the truncation it leaves, from quotients that agree up a ladder.

    For each step that is yielded, the pilots' quotients are to be sent. The truncation is in units of the loss: of the
    derivative, times `unit`.
    """
    good = first / RUNG
    below = yield good
    error = 0.0

    def apart(low: list[float], high: list[float]) -> float:
        """Return how far two quotients are apart, in units of the loss; a pilot without a value says nothing."""
        told = [abs(b - a) * u for a, b, u in zip(low, high, unit, strict=True) if math.isfinite(b - a)]
        return max(told, default=math.inf)

    def explained(shorter: float) -> float:
        return float(scheme.amplification * noise.error(PILOT_Z) / shorter)

    for _ in range(RUNGS):
        longer = good * RUNG
        if longer > LONGEST:
            break
        above = yield longer
        if apart(below, above) > explained(good):
            break
        error = explained(good)
        good, below = longer, above
    if not error:  # even the first two differ by more than noise: the length scale here is shorter than the parameters
        tried = []
        for _ in range(RUNGS):
            shorter = good / RUNG
            lower = yield shorter
            differ = apart(lower, below)
            tried.append((max(differ, explained(shorter)), good))
            if differ <= explained(shorter):
                break
            good, below = shorter, lower
        # Where the noise is larger than was measured, none may agree, or the shortest by luck: take the least apart.
        error, good = min(tried)
    between, agreed = good * math.sqrt(RUNG), error == explained(good / RUNG)
    vague = all(explained(good) > VAGUE * (abs(q) * u) for q, u in zip(below, unit, strict=True))
    if agreed and between <= LONGEST and vague:
        above = yield between
        if apart(below, above) <= explained(good):
            error, good = explained(good), between
    # Truncation at `good` hid below the noise of the rung under it; a shorter step leaves that much less of it.
    h = good / BELOW_CONSISTENT if error else good
    return h, error / BELOW_CONSISTENT**scheme.order


def _quotients(evaluator: Evaluator, coordinates: IntArray, steps: FloatArray, scheme: Scheme) -> FloatArray:
    at = evaluator.theta[coordinates]
    steps = _representable(evaluator, coordinates, _power_of_two(steps))
    values = evaluator.on_grid(coordinates, steps, scheme.offsets)
    reach = max(scheme.offsets)
    high, low = (evaluator.represent(coordinates, at + far * steps) for far in (reach, -reach))
    achieved = (high - low) / (2 * reach)
    return scheme.derivative(values, achieved)


def _pilot_coordinates(gradient: FloatArray, rng: np.random.Generator, noise: Noise) -> IntArray:
    """Return the coordinate of the largest gradient and some random ones."""
    top = int(np.argmax(np.abs(gradient)))
    telling = gradient[top] and noise.relative <= thresholds.IMPRECISE
    count = max(2, -(-len(gradient) // EACH)) if telling else PILOTS
    drawn = rng.choice(len(gradient), size=min(PILOTS, len(gradient)), replace=False)
    return np.array(list(dict.fromkeys([top, *drawn.tolist()]))[: min(count, PILOTS)], dtype=np.int64)


def _power_of_two(steps: FloatArray) -> FloatArray:
    """Round to powers of two, so that theta + h is exact but where it crosses a binade."""
    return np.asarray(2.0 ** np.round(np.log2(steps)))


def _block_numbers(evaluator: Evaluator, coordinates: IntArray) -> IntArray:
    return np.searchsorted(evaluator.layout.stops, coordinates, side="right")
