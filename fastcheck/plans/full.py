"""The full plan: every coordinate of the chosen blocks by its own difference, and a second look at what stands out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.compare import Judge
from fastcheck.differences import TINY, BlockDerivatives, Resolved, Scheme, Status
from fastcheck.gradients import Analytic
from fastcheck.ladder import LADDER, look_again, look_along
from fastcheck.losses.evaluator import Evaluator
from fastcheck.noise import FLOAT64_EPS, Noise
from fastcheck.parameters import Block
from fastcheck.run import Run
from fastcheck.steps import Steps, lost_to_rounding, rough, rounds, within_scale

__all__ = ["Full", "derivatives", "measure"]

FIRST_LOOKS = 64  # coordinates of a block looked at before asking what the rest are likely to be
BENT = 1e-5  # of a typical derivative: half the gap of the one-sided slopes that is no sign of a kink
OVERHEAD = 0.5  # share of the first pass's evaluations that second looks may cost without asking
KEPT_BACK = 0.2  # share of the budget for second looks at what the first pass found,
GRACE = 1.0  # and seconds for them after Ctrl-C: nothing is called wrong without
BORNE_OUT = 0.1  # a first measurement is borne out if a ladder moves it by less than this share of the error it showed
MARGIN = 1.5  # uncertainties by which a block must differ along a direction: many kinks bias all steps alike
IMAGINARY = 64.0  # unit roundoffs of the largest derivative beside it that a complex step may lose
SHORTER = 16.0  # a cheaper look before the ladder: the same difference with a step this much shorter


@dataclass(frozen=True)
class Full:
    """What the full plan needs.

    Attributes
    ----------
    evaluator : Evaluator
        The loss.
    analytic : Analytic
        The user's gradient; used only to decide what to look at twice.
    base : float
        J(theta).
    noise : Noise
        The noise of one loss value.
    steps : Steps
        The step of every coordinate.
    scheme : Scheme
        The difference scheme of the first pass.
    judge : Judge
        What counts as an error.
    run : Run
        Budget and progress.
    first : Full or None
        What the first pass works with, where it is not the same: the complex step has an evaluator and steps of its
        own.
    """

    evaluator: Evaluator
    analytic: Analytic
    base: float
    noise: Noise
    steps: Steps
    scheme: Scheme
    judge: Judge
    run: Run
    first: Full | None = None


def measure(plan: Full, chosen: Sequence[tuple[int, Block, IntArray | None]]) -> list[BlockDerivatives]:
    """Measure the derivatives of whole blocks, or of some coordinates of them.

    Parameters
    ----------
    plan : Full
        The loss and the settings.
    chosen : sequence of (int, Block, int64 array or None)
        Number of the block, the block, and the places in theta to measure, rising; None for all of it.
    """
    value = np.full(plan.evaluator.theta.size, np.nan)
    found = [BlockDerivatives.empty(block, places, value) for _, block, places in chosen]
    with plan.run.interruptible(), plan.run.keeping_back(KEPT_BACK):
        _first_pass(plan.first or plan, found)
    complete = plan.run.stopped is None
    blocks = [(number, block) for (number, _, _), block in zip(chosen, found, strict=True)]
    settled: list[bool] = []
    with plan.run.interruptible(), plan.run.reprieved(GRACE):
        for number, block in blocks:
            settled.append(_second_looks(plan, number, block, complete))
            if complete:
                _look_along(plan, number, block)
    for k, (number, block) in enumerate(blocks):
        if k >= len(settled) or not settled[k]:
            _withdraw(plan, number, block)
    return found


def derivatives(plan: Full) -> FloatArray:
    """Return the measured derivative of every coordinate, shape (P,); where a kink was near, from a second look.

    Without a gradient to compare with, what asks for a second look is the gap between the one-sided quotients: a kink
    within the step biases a central difference by no more than half of that. Steps that the user named are taken as
    they are.
    """
    value, bends = (np.full(plan.evaluator.theta.size, np.nan) for _ in range(2))
    found = [BlockDerivatives.empty(block, None, value) for block in plan.evaluator.layout.blocks]
    with plan.run.interruptible():
        _first_pass(plan.first or plan, found, bends)
        for block in found if plan.steps.exact else ():
            _look(plan, block, _unsteady(plan, block, bends[block.block.slice]))
    return value


def _unsteady(plan: Full, found: BlockDerivatives, bends: FloatArray) -> IntArray:
    """Return the rows whose one-sided quotients are apart, and whose derivative is another one at a shorter step."""
    if not np.isfinite(found.value).any():
        return np.empty(0, np.int64)
    typical = BENT * math.sqrt(float(np.nanmean(found.value**2)))
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(bends > typical + 4 * found.rounding)
        trial = _trial(plan, found, rows, SHORTER)
        moved = np.abs(trial.value - found.value[rows])
        return rows[moved > typical / SHORTER + found.rounding[rows] + trial.rounding]


def _first_pass(plan: Full, found: Sequence[BlockDerivatives], bends: FloatArray | None = None) -> None:
    """Fill in one difference quotient for every row of every block, in one stream, and half the gap of its slopes."""
    stops = np.cumsum([len(block) for block in found])

    def pieces(rows: slice) -> Iterator[tuple[BlockDerivatives, slice]]:
        """Yield the blocks that some rows of the stream lie in, and which rows of theirs those are."""
        for k in range(int(np.searchsorted(stops, rows.start, side="right")), len(found)):
            first = int(stops[k]) - len(found[k])
            if first >= rows.stop:
                return
            yield found[k], slice(max(rows.start - first, 0), min(rows.stop - first, len(found[k])))

    def probes(rows: slice) -> tuple[IntArray, FloatArray]:
        places = np.concatenate([block.places(part) for block, part in pieces(rows)])
        return places, plan.steps.of(plan.evaluator, places)

    far, near = max(plan.scheme.offsets), min(plan.scheme.offsets)
    ends = [plan.scheme.offsets.index(far), plan.scheme.offsets.index(near)]
    reach = far if plan.scheme.subtracts and near == -far else math.nan  # one-sided schemes tell nothing of the gap
    for shard, values in plan.run.stream(plan.evaluator, int(stops[-1]), probes, plan.scheme.offsets):
        at = 0
        if bends is not None:
            with np.errstate(invalid="ignore"):
                bends[shard.coordinates] = np.abs(values[:, ends].sum(axis=1) - 2 * plan.base) / (
                    2 * reach * shard.steps
                )
        for block, rows in pieces(shard.rows):
            part = slice(at, at + rows.stop - rows.start)
            _quotients(plan, block, rows, shard.coordinates[part], shard.steps[part], values[part])
            at = part.stop


def _quotients(
    plan: Full, found: BlockDerivatives, rows: IntArray | slice, places: IntArray, steps: FloatArray, values: FloatArray
) -> None:
    """Write the quotients of some rows and their uncertainty."""
    scheme, evaluator = plan.scheme, plan.evaluator
    divisor = steps
    low_precision = rounds(evaluator)
    if plan.steps.exact or low_precision:
        far, near = max(scheme.offsets), min(scheme.offsets)
        at = evaluator.theta[places]
        high = evaluator.represent(places, at + far * steps)
        low = evaluator.represent(places, at + near * steps)
        divisor = (high - low) / (far - near)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = scheme.derivative(values, divisor)
        quotient[~np.isfinite(quotient)] = np.nan
    found.value[rows] = quotient
    if scheme.subtracts:
        rounding = plan.judge.loss_error(plan.noise.level) * scheme.amplification / divisor
    else:
        rounding = np.full(
            len(steps), IMAGINARY * FLOAT64_EPS * np.abs(quotient).max(initial=0.0, where=quotient == quotient)
        )
    with np.errstate(over="ignore"):  # a step so short that nothing can be known: infinite
        found.rounding[rows] = np.maximum(rounding, TINY)
    found.truncation[rows] = plan.steps.truncation_of(evaluator, places)
    if scheme.subtracts and plan.noise.grain:  # half a quantum is a bound, and no deviation that averages out
        with np.errstate(over="ignore", divide="ignore"):
            found.truncation[rows] += plan.noise.bias * scheme.amplification / np.abs(divisor)
    if low_precision and len(scheme.offsets) > 2:  # its weights are those of even steps
        uneven = 2 * lost_to_rounding(evaluator, places, steps) * np.abs(quotient)
        found.truncation[rows] += np.where(np.isfinite(uneven), uneven, 0.0)
    elif not plan.steps.exact and scheme.subtracts:  # theta + h is rounded, and the quotient with it
        lost = np.spacing(np.abs(evaluator.theta[places])) / steps * np.abs(quotient)
        found.truncation[rows] += np.where(np.isfinite(lost), lost, 0.0)


def _second_looks(plan: Full, number: int, found: BlockDerivatives, complete: bool) -> bool:
    """Look again at every row that stands clear of its uncertainty, until none does or all are explained.

    Where the first pass was not complete, rows without a value are those it did not reach. Say whether the run got to
    the end of it.
    """
    analytic = plan.analytic.flat[found.block.slice]
    eps = float(plan.analytic.eps[number])
    for place in plan.run.lost:  # what ended a worker process would end this one
        if found.block.start <= place < found.block.stop:
            found.put(place, Resolved(np.nan, np.inf, 0.0, np.nan, np.nan, Status.UNRESOLVED))
    allowance = max(FIRST_LOOKS, int(OVERHEAD * len(found) * len(plan.scheme.offsets) / (2 * len(LADDER))))
    rng = np.random.default_rng((len(found), number))
    shorter = iter((SHORTER, SHORTER**2))
    while True:
        suspects = _suspects(plan, found, analytic, eps, 0.0, complete)
        if len(suspects) > allowance:  # then only those that could matter
            suspects = _suspects(plan, found, analytic, eps, 0.5 * plan.judge.tolerance, complete)
        if not len(suspects) or plan.run.stopped:
            return not len(suspects)
        if len(suspects) <= allowance:
            _look(plan, found, suspects)
            continue
        batch = _some_of(suspects, rng)
        before = found.value[batch].copy()
        _look(plan, found, batch)
        if plan.run.stopped is None and _first_was_right(plan, found, batch, before, analytic, eps):
            return True  # both ends and the middle are wrong by their own ladders: the rest stands as measured
        factor = next(shorter, None)
        if factor is not None:
            _shorter(plan, found, np.setdiff1d(suspects, batch), factor)


def _withdraw(plan: Full, number: int, found: BlockDerivatives) -> None:
    """Forget the first measurement of every row that stands out and was not looked at again: it is no evidence.

    A first step may have crossed a kink. The row counts as not measured, as do those that the run did not come to.
    """
    analytic = plan.analytic.flat[found.block.slice]
    rows = _suspects(plan, found, analytic, float(plan.analytic.eps[number]), 0.5 * plan.judge.tolerance, False)
    found.value[rows] = np.nan


def _look_along(plan: Full, number: int, found: BlockDerivatives) -> None:
    """Look again at a block as a whole, along the error that its coordinates show together, and along its gradient.

    Along a direction a single measurement's noise stands against the error of all coordinates at once. Errors below
    the uncertainty of each coordinate may add up to one that no independent noise explains: if the gradient is to
    blame, the derivative along them shows it; if not, the coordinates shared a systematic error, and the block's
    uncertainty is that much larger. And where noise hides the single coordinates, the block may still be seen wrong.
    """
    analytic = plan.analytic.flat[found.block.slice]
    compared = plan.judge.compare(found, analytic, float(plan.analytic.eps[number]))
    stands_out = compared.excess > plan.judge.tolerance
    if plan.run.stopped or len(compared.wrong) or not compared.norms.scale or not (stands_out or compared.silent):
        return
    if any(resolved.status is Status.KINK for resolved in found.looked.values()):
        return  # at a kink the derivative along a direction is not the product with a subgradient
    rows = np.flatnonzero(np.isfinite(found.value))
    places = found.places(rows)
    error = np.zeros(found.block.size)
    error[places - found.block.start] = plan.analytic.flat[places] - found.value[rows]
    step = float(np.median(plan.steps.of(plan.evaluator, places)))
    shown = math.sqrt(compared.norms.error)
    if rough(plan.evaluator, plan.noise):
        return  # every ladder is biased there, and what it says of a block is no proof
    for direction in (error, analytic):
        least = _least_error(plan, found, analytic, direction, step)
        if least <= shown:  # an error larger than all coordinates show together is the ladder's own
            found.least = max(found.least, least)
    if stands_out and found.least <= plan.judge.tolerance * compared.norms.scale:
        found.slack = shown


def _least_error(
    plan: Full, found: BlockDerivatives, analytic: FloatArray, direction: FloatArray, step: float
) -> float:
    """Return the norm that the gradient's error has at least, by a measurement along a direction."""
    largest = float(np.abs(direction).max())
    if not largest:
        return 0.0
    unit = direction / largest
    seen = look_along(plan.evaluator, plan.base, found.block.start, unit, step, plan.noise.error(plan.judge.z))
    low, high = seen.interval
    predicted = float(analytic @ unit)
    apart = max(low - predicted, predicted - high, 0.0) - MARGIN * seen.uncertainty
    return max(0.0, apart) / float(np.linalg.norm(unit))


def _suspects(
    plan: Full, found: BlockDerivatives, analytic: FloatArray, eps: float, threshold: float, complete: bool
) -> IntArray:
    """Return the rows not looked at yet that stand out by more than a threshold or have no value, worst first."""
    excess = plan.judge.excess(found, analytic, eps)
    unmeasured = ~np.isfinite(found.value) if complete else np.zeros(len(found), bool)
    stands_out = np.flatnonzero((excess > threshold) | unmeasured)
    fresh = np.array(
        [row for row in stands_out if int(found.places(slice(row, row + 1))[0]) not in found.looked], np.int64
    )
    return fresh[np.argsort(-np.nan_to_num(excess[fresh], nan=np.inf), kind="stable")]


def _some_of(suspects: IntArray, rng: np.random.Generator) -> IntArray:
    quarter = FIRST_LOOKS // 4
    middle = rng.choice(suspects[quarter:-quarter], size=2 * quarter, replace=False)
    return np.concatenate([suspects[:quarter], middle, suspects[-quarter:]])


def _look(plan: Full, found: BlockDerivatives, rows: IntArray) -> None:
    places = found.places(rows)
    steps = plan.steps.of(plan.evaluator, places)
    if not plan.steps.exact:
        steps = within_scale(plan.evaluator, places, steps)
    loss_error = plan.noise.error(plan.judge.z)
    seen = look_again(plan.run, plan.evaluator, plan.base, places, steps, loss_error)
    for place, resolved in zip(places.tolist(), seen, strict=False):  # the run may have been stopped
        found.put(place, _weighed(plan, found, place, resolved))


def _weighed(plan: Full, found: BlockDerivatives, place: int, seen: Resolved) -> Resolved:
    """Return what a second look leaves of the first measurement.

    In a noisy loss the ladder can be less certain than the first quotient and agree with it. Then the coordinate is
    judged no more for itself, but its first value still counts in the norms of its block. A step that the user named
    says nothing of its truncation, and is not to be trusted so.
    """
    row = found.row(place)
    first, known = float(found.value[row]), float(found.rounding[row] + found.truncation[row])
    g = float(plan.analytic.flat[place])
    contradicts = abs(seen.value - first) > seen.uncertainty + known
    if seen.status is Status.KINK:
        return seen  # its slopes and their uncertainty belong together
    if contradicts or not math.isfinite(first) or not seen.uncertainty > known or not plan.steps.exact:
        return seen
    # Where the ladder refutes the gradient by itself, the first quotient is borne out and stays as sharp as it was.
    borne_out = abs(seen.value - g) > seen.uncertainty
    doubt = float(found.truncation[row]) if borne_out else abs(g - first)
    return replace(seen, value=first, rounding=float(found.rounding[row]), truncation=doubt)


def _trial(plan: Full, found: BlockDerivatives, rows: IntArray, factor: float) -> BlockDerivatives:
    """Return the quotients of some rows with a step this much shorter; NaN where the run was stopped before."""
    places = found.places(rows)
    steps = plan.steps.of(plan.evaluator, places) / factor
    trial = BlockDerivatives.empty(found.block, places)
    for part, values in plan.run.grid(plan.evaluator, places, steps, plan.scheme.offsets):
        _quotients(plan, trial, np.arange(len(rows))[part], places[part], steps[part], values)
    return trial


def _shorter(plan: Full, found: BlockDerivatives, rows: IntArray, factor: float) -> None:
    """Measure rows with a shorter step; keep what refutes the first measurement.

    That is, where gradient and new measurement, the new one's larger uncertainty included, are closer than half of the
    first discrepancy: a real error of that size can't hide there.
    """
    trial = _trial(plan, found, rows, factor)
    g = plan.analytic.flat[found.places(rows)]
    with np.errstate(invalid="ignore"):
        refutes = np.abs(g - trial.value) + trial.rounding + trial.truncation <= 0.5 * np.abs(g - found.value[rows])
    found.value[rows[refutes]] = trial.value[refutes]
    found.rounding[rows[refutes]] = trial.rounding[refutes]
    found.truncation[rows[refutes]] = trial.truncation[refutes]


def _first_was_right(
    plan: Full, found: BlockDerivatives, rows: IntArray, before: FloatArray, analytic: FloatArray, eps: float
) -> bool:
    """Say whether the ladders bore out every first measurement: they are errors, and of the size first seen."""
    g = plan.analytic.flat[found.places(rows)]
    excess = plan.judge.excess(found, analytic, eps)[rows]
    moved = np.abs(found.value[rows] - before)
    return bool(np.all(excess > plan.judge.tolerance) and np.all(moved <= BORNE_OUT * np.abs(g - found.value[rows])))
