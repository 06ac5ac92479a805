"""Every coordinate of the chosen blocks by its own difference, and a second look at what stands out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.context import Context, Outcome
from fastcheck.estimates import SCHEMES, TINY, UNRESOLVED, Estimate, Estimates, Scheme, Status
from fastcheck.judge.coordinates import Comparison, Lost
from fastcheck.losses.evaluator import Evaluator
from fastcheck.losses.imaginary import STEP, ImaginaryLoss
from fastcheck.measure.looks import LADDER, look_again, look_along
from fastcheck.measure.noise import FLOAT64_EPS
from fastcheck.measure.steps import (
    Steps,
    choose_steps,
    fixed_steps,
    is_low_precision,
    rough,
    step_quantisation,
    within_scale,
)
from fastcheck.parameters import Block

__all__ = ["Differencing", "derivatives", "measure"]

KEPT_BACK = 0.2  # share of the budget for second looks at what the first pass found,
GRACE = 1.0  # and seconds for them after Ctrl-C: nothing is called wrong without
SHORTER = 16.0  # a cheaper look before the ladder: the same difference with a step this much shorter


@dataclass(frozen=True)
class Differencing:
    """How the coordinates of a run are differenced.

    Attributes
    ----------
    context : Context
        The run. Its analytic gradient is used only to decide what to look at twice.
    evaluator : Evaluator
        The loss.
    steps : Steps
        The step of every coordinate.
    scheme : Scheme
        The difference scheme of the first pass.
    first : Differencing or None
        How the first pass differences, where it is not the same: the complex step has an evaluator and steps of its
        own.
    """

    context: Context
    evaluator: Evaluator
    steps: Steps
    scheme: Scheme
    first: Differencing | None = None

    @classmethod
    def of(cls, context: Context, pilots: Sequence[int]) -> Differencing:
        """Choose the steps of some blocks, or take the user's."""
        settings, evaluator = context.settings, context.evaluator
        scheme = SCHEMES[settings.scheme]
        real = scheme if scheme.subtracts else SCHEMES["central"]
        if settings.step is None or not scheme.subtracts:
            flat = context.analytic.flat
            steps = choose_steps(evaluator, context.base, flat, context.noise, real, context.rng, tuple(pilots))
        else:
            steps = fixed_steps(evaluator, settings.step)
        plan = cls(context, evaluator, steps, real)
        if scheme.subtracts:
            return plan
        imaginary = ImaginaryLoss(evaluator)
        direction = context.rng.standard_normal(evaluator.theta.size)
        direction *= steps.of(evaluator, np.arange(evaluator.theta.size))
        imaginary.verify(context.base, direction, np.array([0.25]))
        longest = float(np.abs(evaluator.theta).max() or 1.0)
        first = cls(
            context, cast(Evaluator, imaginary), fixed_steps(evaluator, settings.step or STEP * longest), scheme
        )
        return replace(plan, first=first)


def measure(context: Context, places: Sequence[IntArray | None]) -> Outcome:
    """Measure every coordinate of the chosen blocks, or some places in theta of each; None for all of a block."""
    count = sum(block.size if p is None else len(p) for (_, block), p in zip(context.blocks, places, strict=True))
    context = context.counting(count)
    plan = Differencing.of(context, [number for number, _ in context.blocks])
    context.run.begin()
    return Outcome(context, _measured(plan, places), steps=plan.steps)


def _measured(plan: Differencing, places: Sequence[IntArray | None]) -> list[Estimates]:
    chosen = [(number, block, p) for (number, block), p in zip(plan.context.blocks, places, strict=True)]
    value = np.full(plan.evaluator.theta.size, np.nan)
    found = [Estimates.empty(block, places, value) for _, block, places in chosen]
    with plan.context.run.interruptible(), plan.context.run.keeping_back(KEPT_BACK):
        _first_pass(plan.first or plan, found)
    complete = plan.context.run.stopped is None
    blocks = [(number, block) for (number, _, _), block in zip(chosen, found, strict=True)]
    settled: list[bool] = []
    with plan.context.run.interruptible(), plan.context.run.reprieved(GRACE):
        for number, block in blocks:
            if len(rows := _other_on_their_own_scale(plan, block)):
                _look(plan, block, rows)
                block.compared = None
            settled.append(_second_looks(plan, number, block, complete))
            if complete:
                _look_along(plan, number, block)
    for k, (number, block) in enumerate(blocks):
        if k >= len(settled) or not settled[k]:
            _withdraw(plan, number, block)
    return found


def derivatives(context: Context) -> FloatArray:
    """Return the measured derivative of every coordinate, shape (P,); where a kink was near, from a second look.

    Without a gradient to compare with, what asks for a second look is the gap between the one-sided quotients: a kink
    within the step biases a central difference by no more than half of that. Steps that the user named are taken as
    they are.
    """
    plan = Differencing.of(context, [number for number, _ in context.blocks])
    context.run.begin()
    size = plan.evaluator.theta.size
    bends, found = np.full(size, np.nan), Estimates.empty(Block("", (size,), np.dtype(np.float64), 0, size))
    with plan.context.run.interruptible():
        _first_pass(plan.first or plan, [found], bends)
        if plan.steps.exact:
            rows = np.union1d(_unsteady(plan, found, bends), _other_on_their_own_scale(plan, found))
            if len(rows):
                _look(plan, found, rows)
    return found.value


def _unsteady(plan: Differencing, found: Estimates, bends: FloatArray) -> IntArray:
    """Return the places whose one-sided quotients are apart, and whose derivative is another one at each shorter step.

    Where the first step was only too long, what is extrapolated from it and a shorter one takes the place of its value:
    a third step bears that out.
    """
    bent, typical = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for block in plan.evaluator.layout.blocks:
        part = block.slice
        told = found.value[part][np.isfinite(found.value[part])]
        if len(told):
            least = thresholds.BENT * math.sqrt(float(np.mean(told**2)))
            apart = bends[part] > least + thresholds.STANDS_OUT * found.rounding[part]
            bent.append(block.start + np.flatnonzero(apart))
            typical.append(np.full(len(bent[-1]), least, np.float32))
    rows = np.concatenate(bent)
    if len(rows):
        trial, first = _trial(plan, found, rows, SHORTER), found.value[rows]
        moved = np.abs(trial.value - first) > np.concatenate(typical) / SHORTER + found.rounding[rows] + trial.rounding
        rows, first, value, rounding = rows[moved], first[moved], trial.value[moved], trial.rounding[moved]
    if len(rows):
        value += (value - first) / (SHORTER**plan.scheme.order - 1)
        trial = _trial(plan, found, rows, SHORTER**2)
        borne_out = np.abs(trial.value - value) <= rounding + trial.rounding
        found.value[rows[borne_out]] = value[borne_out]
        rows = rows[~borne_out]
    return rows


def _other_on_their_own_scale(plan: Differencing, found: Estimates) -> IntArray:
    """Return the rows of parameters far below their step whose derivative is another one at a step far below them.

    Where entries are of unlike sizes, the claimed derivatives tell the scale of each. One that is claimed to be zero
    tells nothing: 3e-9 seconds may be all of a delay, or what rounding left of a zero.
    """
    if not plan.steps.exact or not plan.steps.relative.any():
        return np.empty(0, np.int64)
    places = found.places(slice(None))
    own, steps = np.abs(plan.evaluator.theta[places]), plan.steps.of(plan.evaluator, places)
    unlike = plan.steps.are_relative(plan.evaluator, places)
    rows = np.flatnonzero(unlike & (own > 0) & (own < steps) & np.isfinite(found.value))
    if not len(rows):
        return rows
    trial = _trial(plan, found, rows, steps[rows] / own[rows] * SHORTER**2)
    apart = np.abs(trial.value - found.value[rows])
    return rows[apart > trial.rounding + found.rounding[rows] + found.truncation[rows]]


def _first_pass(plan: Differencing, found: Sequence[Estimates], bends: FloatArray | None = None) -> None:
    """Fill in one difference quotient for every row of every block, in one stream, and half the gap of its slopes."""
    stops = list(accumulate(map(len, found)))

    def pieces(rows: slice) -> Iterator[tuple[Estimates, slice]]:
        """Yield the blocks that some rows of the stream lie in, and which rows of theirs those are."""
        for k in range(bisect_right(stops, rows.start), len(found)):
            first = stops[k] - len(found[k])
            if first >= rows.stop:
                return
            yield found[k], slice(max(rows.start - first, 0), min(rows.stop - first, len(found[k])))

    def probes(rows: slice) -> tuple[IntArray, FloatArray]:
        places = np.concatenate([block.places(part) for block, part in pieces(rows)])
        return places, plan.steps.of(plan.evaluator, places)

    far, near = max(plan.scheme.offsets), min(plan.scheme.offsets)
    ends = [plan.scheme.offsets.index(far), plan.scheme.offsets.index(near)]
    reach = far if plan.scheme.subtracts and near == -far else math.nan  # one-sided schemes tell nothing of the gap
    for shard, values in plan.context.run.stream(plan.evaluator, stops[-1], probes, plan.scheme.offsets):
        at = 0
        if bends is not None:
            with np.errstate(invalid="ignore"):
                bends[shard.coordinates] = np.abs(values[:, ends].sum(axis=1) - 2 * plan.context.base) / (
                    2 * reach * shard.steps
                )
        measured = _quotients(plan, shard.coordinates, shard.steps, values)
        for block, rows in pieces(shard.rows):
            part = slice(at, at + rows.stop - rows.start)
            block.value[rows], block.rounding[rows], block.truncation[rows] = (each[part] for each in measured)
            at = part.stop
    for block in found if not plan.scheme.subtracts else ():
        largest = np.abs(block.value).max(initial=0.0, where=np.isfinite(block.value))
        block.rounding[:] = max(thresholds.COMPLEX_ROUNDING * FLOAT64_EPS * largest, TINY)


def _quotients(
    plan: Differencing, places: IntArray, steps: FloatArray, values: FloatArray
) -> tuple[FloatArray, NDArray[np.float32], NDArray[np.float32]]:
    """Return the quotients at some places and the pieces of their uncertainty, rounding and truncation."""
    scheme, evaluator = plan.scheme, plan.evaluator
    divisor = steps
    low_precision = is_low_precision(evaluator)
    if plan.steps.exact or low_precision:
        far, near = max(scheme.offsets), min(scheme.offsets)
        at = evaluator.theta[places]
        high = evaluator.represent(places, at + far * steps)
        low = evaluator.represent(places, at + near * steps)
        divisor = (high - low) / (far - near)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = scheme.derivative(values, divisor)
        quotient[~np.isfinite(quotient)] = np.nan
    if scheme.subtracts:
        rounding = plan.context.noise.random_error(plan.context.judge.z) * scheme.amplification / divisor
    else:
        rounding = np.zeros(len(steps))  # nothing is subtracted: that of the block's largest, which is not known yet
    truncation = plan.steps.truncation_of(evaluator, places).astype(np.float32)
    with np.errstate(over="ignore", divide="ignore"):  # a step so short that nothing can be known: infinite
        rounded = np.maximum(rounding, TINY).astype(np.float32)
        if scheme.subtracts and plan.context.noise.grain:  # half a quantum is a bound, and none that averages out
            truncation += plan.context.noise.bias * scheme.amplification / np.abs(divisor)
    if low_precision and len(scheme.offsets) > 2:  # its weights are those of even steps
        uneven = 2 * step_quantisation(evaluator, places, steps) * np.abs(quotient)
        truncation += np.where(np.isfinite(uneven), uneven, 0.0)
    elif not plan.steps.exact and scheme.subtracts:  # theta + h is rounded, and the quotient with it
        lost = np.spacing(np.abs(evaluator.theta[places])) / steps * np.abs(quotient)
        truncation += np.where(np.isfinite(lost), lost, 0.0)
    return quotient, rounded, truncation


def _second_looks(plan: Differencing, number: int, found: Estimates, complete: bool) -> bool:
    """Look again at every row that stands clear of its uncertainty, until none does or all are explained.

    Where the first pass was not complete, rows without a value are those it did not reach. Say whether the run got to
    the end of it.
    """
    for place in plan.context.run.lost:  # what ended a worker process would end this one
        if found.block.start <= place < found.block.stop:
            found.put(place, UNRESOLVED)
    compared = _compared(plan, number, found)
    if not compared.clear and not (complete and compared.missing):
        return True
    analytic, lost, _ = plan.context.of_block(number)
    allowance = max(
        thresholds.FIRST_LOOKS, int(thresholds.SECOND_LOOKS * len(found) * len(plan.scheme.offsets) / (2 * len(LADDER)))
    )
    rng = np.random.default_rng((len(found), number))
    shorter = iter((SHORTER, SHORTER**2))
    while True:
        suspects = _suspects(plan, found, analytic, lost, 0.0, complete)
        if len(suspects) > allowance:  # then only those that could matter
            suspects = _suspects(plan, found, analytic, lost, 0.5 * plan.context.judge.tolerance, complete)
        if not len(suspects) or plan.context.run.stopped:
            return not len(suspects)
        if len(suspects) <= allowance:
            _look(plan, found, suspects, _errors(plan, found, suspects))
            continue
        batch = _some_of(suspects, rng)
        before = found.value[batch].copy()
        _look(plan, found, batch, _errors(plan, found, batch))
        if plan.context.run.stopped is None and _first_was_right(plan, found, batch, before, analytic, lost):
            return True  # both ends and the middle are wrong by their own ladders: the rest stands as measured
        factor = next(shorter, None)
        if factor is not None:
            _shorter(plan, found, np.setdiff1d(suspects, batch), factor)


def _compared(plan: Differencing, number: int, found: Estimates) -> Comparison:
    """Return what the judge makes of a block, from before where nothing was measured since."""
    if found.compared is None:
        analytic, lost, _ = plan.context.of_block(number)
        found.compared = plan.context.judge, plan.context.judge.compare(found, analytic, lost)
    compared: Comparison = found.compared[1]
    return compared


def _withdraw(plan: Differencing, number: int, found: Estimates) -> None:
    """Forget the first measurement of every row that stands out and was not looked at again: it is no evidence.

    A first step may have crossed a kink. The row counts as not measured, as do those that the run did not come to.
    """
    analytic, lost, _ = plan.context.of_block(number)
    rows = _suspects(plan, found, analytic, lost, 0.5 * plan.context.judge.tolerance, False)
    found.value[rows] = np.nan
    found.compared = None


def _look_along(plan: Differencing, number: int, found: Estimates) -> None:
    """Look again at a block as a whole, along the error that its coordinates show together, and along its gradient.

    Along a direction a single measurement's noise stands against the error of all coordinates at once. Errors below
    the uncertainty of each coordinate may add up to one that no independent noise explains: if the gradient is to
    blame, the derivative along them shows it; if not, the coordinates shared a systematic error, and the block's
    uncertainty is that much larger. And where noise hides the single coordinates, the block may still be seen wrong.
    """
    compared = _compared(plan, number, found)
    stands_out = compared.excess > plan.context.judge.tolerance
    if (
        plan.context.run.stopped
        or len(compared.wrong)
        or not compared.norms.scale
        or not (stands_out or not compared.resolved)
    ):
        return
    if any(resolved.status is Status.KINK for resolved in found.looks.values()):
        return  # at a kink the derivative along a direction is not the product with a subgradient
    found.compared = None
    analytic, lost, _ = plan.context.of_block(number)
    rows = np.flatnonzero(np.isfinite(found.value))
    places = found.places(rows)
    error = np.zeros(found.block.size)
    error[places - found.block.start] = plan.context.analytic.flat[places] - found.value[rows]
    step = float(np.median(plan.steps.of(plan.evaluator, places)))
    shown = math.sqrt(compared.norms.error)
    if rough(plan.evaluator, plan.context.noise):
        return  # every ladder is biased there, and what it says of a block is no proof
    most = math.inf
    for direction in (error, analytic):
        least, reached = _error_along(plan, found, analytic, direction, step, lost.argument)
        if least <= shown:  # an error larger than all coordinates show together is the ladder's own
            found.error_floor = max(found.error_floor, least)
        if direction is error:
            most = reached
    if stands_out and found.error_floor <= plan.context.judge.tolerance * compared.norms.scale:
        found.systematic = shown
    # A real error beyond what is promised as detectable would leave a third of itself along what is shown
    found.cleared = most <= thresholds.CLEARED * shown


def _error_along(
    plan: Differencing, found: Estimates, analytic: FloatArray, direction: FloatArray, step: float, lost: float
) -> tuple[float, float]:
    """Return what the gradient's error has along a direction at least and at most, by a measurement of its own.

    `lost` is the norm of what rounding of the parameters makes of any gradient.
    """
    largest = float(np.abs(direction).max())
    if not largest:
        return 0.0, 0.0
    unit = direction / largest
    seen = look_along(plan.evaluator, plan.context.base, found.block.start, unit, step, plan.context.loss_error)
    low, high = seen.interval
    predicted = float(analytic @ unit)
    apart, margin = max(low - predicted, predicted - high, 0.0), thresholds.ALONG_MARGIN * seen.uncertainty
    length = float(np.linalg.norm(unit))
    return max(0.0, (apart - margin) / length - lost), (apart + margin) / length + lost


def _suspects(
    plan: Differencing, found: Estimates, analytic: FloatArray, lost: Lost, threshold: float, complete: bool
) -> IntArray:
    """Return the rows not looked at yet that stand out by more than a threshold or have no value, worst first."""
    excess = plan.context.judge.excess(found, analytic, lost)
    unmeasured = ~np.isfinite(found.value) if complete else np.zeros(len(found), bool)
    stands_out = np.flatnonzero((excess > threshold) | unmeasured)
    fresh = np.array([row for row in stands_out.tolist() if found.place(row) not in found.looks], np.int64)
    return fresh[np.argsort(-np.nan_to_num(excess[fresh], nan=np.inf), kind="stable")]


def _errors(plan: Differencing, found: Estimates, rows: IntArray) -> FloatArray:
    """Return analytic minus measured of some rows."""
    errors: FloatArray = plan.context.analytic.flat[found.places(rows)] - found.value[rows]
    return errors


def _some_of(suspects: IntArray, rng: np.random.Generator) -> IntArray:
    quarter = thresholds.FIRST_LOOKS // 4
    middle = rng.choice(suspects[quarter:-quarter], size=2 * quarter, replace=False)
    return np.concatenate([suspects[:quarter], middle, suspects[-quarter:]])


def _look(plan: Differencing, found: Estimates, rows: IntArray, errors: FloatArray | None = None) -> None:
    """Measure rows down a ladder; well enough to bear out or refute the errors that they showed, where given."""
    places = found.places(rows)
    steps = plan.steps.of(plan.evaluator, places)
    if not plan.steps.exact:
        steps = within_scale(plan.evaluator, places, steps)
    loss_error = plan.context.loss_error
    wanted = None if errors is None else np.nan_to_num(thresholds.BORNE_OUT * np.abs(errors), nan=np.inf)
    seen = look_again(plan.context.run, plan.evaluator, plan.context.base, places, steps, loss_error, wanted)
    for place, resolved in zip(places.tolist(), seen, strict=False):  # the run may have been stopped
        found.put(place, _weighed(plan, found, place, resolved))


def _weighed(plan: Differencing, found: Estimates, place: int, seen: Estimate) -> Estimate:
    """Return what a second look leaves of the first measurement.

    In a noisy loss the ladder can be less certain than the first quotient and agree with it. Then the coordinate is
    judged no more for itself, but its first value still counts in the norms of its block. A step that the user named
    says nothing of its truncation, and is not to be trusted so.
    """
    row = found.row(place)
    first, known = float(found.value[row]), float(found.rounding[row] + found.truncation[row])
    g = float(plan.context.analytic.flat[place])
    contradicts = abs(seen.value - first) > seen.uncertainty + known
    if seen.status is Status.KINK:
        return seen  # its slopes and their uncertainty belong together
    if contradicts or not math.isfinite(first) or not seen.uncertainty > known or not plan.steps.exact:
        return seen
    # Where the ladder refutes the gradient by itself, the first quotient is borne out and stays as sharp as it was.
    borne_out = abs(seen.value - g) > thresholds.ALONG_MARGIN * seen.uncertainty
    known, doubt = float(found.truncation[row]), abs(g - first)
    if borne_out:
        doubt = known
    found.forgiven += max(0.0, doubt**2 - known**2)
    return replace(seen, value=first, rounding=float(found.rounding[row]), truncation=doubt)


def _trial(plan: Differencing, found: Estimates, rows: IntArray, factor: float | FloatArray) -> Estimates:
    """Return the quotients of some rows with a step this much shorter; NaN where the run was stopped before."""
    places = found.places(rows)
    steps = plan.steps.of(plan.evaluator, places) / factor
    trial = Estimates.empty(found.block, places)
    for part, values in plan.context.run.grid(plan.evaluator, places, steps, plan.scheme.offsets):
        measured = _quotients(plan, places[part], steps[part], values)
        trial.value[part], trial.rounding[part], trial.truncation[part] = measured
    if not plan.scheme.subtracts:
        trial.rounding[:] = found.rounding[rows]
    return trial


def _shorter(plan: Differencing, found: Estimates, rows: IntArray, factor: float) -> None:
    """Measure rows with a shorter step; keep what refutes the first measurement.

    That is, where gradient and new measurement, the new one's larger uncertainty included, are closer than half of the
    first discrepancy: a real error of that size can't hide there.
    """
    trial = _trial(plan, found, rows, factor)
    g = plan.context.analytic.flat[found.places(rows)]
    with np.errstate(invalid="ignore"):
        refutes = np.abs(g - trial.value) + trial.rounding + trial.truncation <= 0.5 * np.abs(g - found.value[rows])
    found.value[rows[refutes]] = trial.value[refutes]
    found.rounding[rows[refutes]] = trial.rounding[refutes]
    found.truncation[rows[refutes]] = trial.truncation[refutes]
    found.compared = None


def _first_was_right(
    plan: Differencing, found: Estimates, rows: IntArray, before: FloatArray, analytic: FloatArray, lost: Lost
) -> bool:
    """Say whether the ladders bore out every first measurement: they are errors, and of the size first seen."""
    g = plan.context.analytic.flat[found.places(rows)]
    excess = plan.context.judge.excess(found, analytic, lost)[rows]
    moved = np.abs(found.value[rows] - before)
    return bool(
        np.all(excess > plan.context.judge.tolerance)
        and np.all(moved <= thresholds.BORNE_OUT * np.abs(g - found.value[rows]))
    )
