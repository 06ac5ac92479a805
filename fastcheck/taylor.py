"""The Taylor test: a second opinion on the whole gradient, from one direction and no difference quotient.

For a right gradient of a smooth loss the remainder R(t) = |J(theta + t v) - J(theta) - t g.v| falls with the square of
t; an error e of the gradient leaves the linear term t e.v, which wins as t falls. The slope of log R over log t tells
the two apart without a step to choose. The test is that of adjoint codes, e.g. P. E. Farrell, D. A. Ham, S. W. Funke,
M. E. Rognes, "Automated derivation of the adjoint of high-level transient finite element programs", SIAM J. Sci.
Comput. 35 (2013) C369-C393, section 6. Where it contradicts a pass, a finding says so. Where it contradicts a
refutation, two independent witnesses differ and nothing is proven: the verdict is then inconclusive.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fastcheck import thresholds
from fastcheck.arrays import FloatArray
from fastcheck.context import Context, Outcome
from fastcheck.estimates import Estimates
from fastcheck.findings import Finding, Kind
from fastcheck.judge.judge import Verdicts
from fastcheck.judge.verdict import Verdict
from fastcheck.measure.noise import scale_by_magnitudes
from fastcheck.report.report import Taylor

__all__ = ["STEPS", "order_of", "second_opinion"]

MOST = 1_000_000  # coordinates; beyond, vectors for a second opinion are not worth their memory
STEPS = tuple(2.0 ** -(6 + 2 * k) for k in range(7))  # in units of the parameters
FITTED = 4  # remainders, the smallest clear ones: those of the longest steps still hold cubes
NEARER = 64.0  # times closer to theta the remainder must still be linear, as far as the noise can tell
CLOSER = 4.0  # times closer another remainder must tell the same
CHUNK = 1 << 15  # coordinates moved at a time, so that the test needs no second vector like theta


def order_of(steps: FloatArray, remainders: FloatArray, errors: FloatArray) -> float:
    """Return the order of a remainder: the slope of its logarithm over that of the step, by least squares.

    All arrays are of shape (k,): steps that fall, remainders in units of the loss (NaN where it has no value), and one
    standard deviation of each. The order is 2 for a right gradient of a smooth loss, 1 for a wrong one; NaN where fewer
    than three remainders stand clear of their errors.
    """
    with np.errstate(invalid="ignore"):
        clear = np.flatnonzero(_is_clear(remainders, errors))[-FITTED:]
    if len(clear) < 3:
        return math.nan
    x, y = np.log(steps[clear]), np.log(remainders[clear])
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _is_clear(remainders: FloatArray, errors: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return (remainders > thresholds.TAYLOR_CLEAR * errors) & (remainders > 0)


def second_opinion(outcome: Outcome, verdicts: Verdicts) -> tuple[Taylor | None, Verdicts, Finding | None]:
    """Put the gradient to the Taylor test; 4 to 7 evaluations, and one or two more before it contradicts a verdict.

    A screen, whose bounds need no witness, and a gradient of more than a million coordinates go without. Returns the
    test if there is one, the verdicts, without their refutations where it contradicts them, and a finding where it
    does.
    """
    context = outcome.context
    if outcome.directions or context.run.stopped or context.run.over() or context.theta.size > MOST:
        return None, verdicts, None
    direction = _direction(context, np.random.default_rng(context.seed))
    noise, lost = math.sqrt(2) * context.noise.level + context.noise.bias, _lost(context, direction)
    steps, signed = np.empty(0), np.empty(0)
    for more in (STEPS[-FITTED:], STEPS[:-FITTED]):  # longer ones where the shortest do not all tell
        steps = np.concatenate([more, steps])
        with np.errstate(all="ignore"):
            signed = np.concatenate([_remainders(context, direction, np.array(more)), signed])
        errors = noise + steps * lost
        if _is_clear(np.abs(signed), errors).all():
            break
    order = order_of(steps, np.abs(signed), errors)
    taylor = Taylor(order, tuple(steps.tolist()), tuple(np.abs(signed).tolist()))
    contradiction = _contradiction(outcome, verdicts, direction, order, steps, signed, errors)
    if contradiction is None or verdicts.verdict.passed:
        return taylor, verdicts, contradiction
    return taylor, _withdrawn(verdicts), contradiction


def _withdrawn(verdicts: Verdicts) -> Verdicts:
    """Return the verdicts without their refutations: two independent witnesses contradict each other."""
    blocks = {
        name: dataclasses.replace(one, verdict=Verdict.INCONCLUSIVE, doubtful=True) if one.verdict.refuted else one
        for name, one in verdicts.blocks.items()
    }
    return dataclasses.replace(verdicts, verdict=Verdict.INCONCLUSIVE, blocks=blocks)


def _direction(context: Context, rng: np.random.Generator) -> FloatArray:
    """Return a random direction, each coordinate in proportion to the magnitude of its block."""
    drawn = rng.uniform(-0.5, 0.5, context.theta.size)
    drawn += np.copysign(0.5, drawn)
    direction = np.zeros(context.theta.size)
    for _, block in context.blocks:
        direction[block.slice] = drawn[block.slice]
    scale_by_magnitudes(context.evaluator, direction)
    return direction


def _remainders(context: Context, direction: FloatArray, steps: FloatArray) -> FloatArray:
    """Return J(theta + t v) - J(theta) - t g.v with its sign, where t v is what the loss really saw."""
    evaluator, g = context.evaluator, context.analytic.flat
    values = evaluator.along(0, direction, steps)
    predicted = np.zeros(len(steps))
    for start in range(0, len(direction), CHUNK):
        part = slice(start, min(start + CHUNK, len(direction)))
        places, at = np.arange(part.start, part.stop), evaluator.theta[part]
        for k, t in enumerate(steps.tolist()):
            moved = evaluator.represent(places, at + t * direction[part]) - at
            predicted[k] += float(g[part] @ moved)
    return np.asarray(values - context.base - predicted)


def _lost(context: Context, direction: FloatArray) -> float:
    """Return what the gradient's own rounding may have cost g.v, in units of the loss."""
    total = 0.0
    for number, block in context.blocks:
        g, lost, _ = context.of_block(number)
        largest = max(float(g.max(initial=0.0)), -float(g.min(initial=0.0)))
        part = direction[block.slice]
        total += lost.eps * largest * math.sqrt(part @ part)
    return thresholds.TAYLOR_LOST * total + context.noise.argument


def _contradiction(
    outcome: Outcome,
    verdicts: Verdicts,
    direction: FloatArray,
    order: float,
    steps: FloatArray,
    signed: FloatArray,
    errors: FloatArray,
) -> Finding | None:
    """Return a finding where the order is not that of the verdict, and the verdict's own margins can't explain it."""
    if math.isnan(order):
        return None
    context = outcome.context
    with np.errstate(invalid="ignore"):
        k = int(np.flatnonzero(np.abs(signed) > thresholds.TAYLOR_CLEAR * errors)[-1])  # the smallest clear remainder
    t = float(steps[k])
    slope = abs(float(signed[k])) / t
    evidence = {"order": order, "slope": slope}
    kinks = any(one.compared.kinks for one in verdicts.blocks.values() if one.compared is not None)
    if verdicts.verdict.passed and thresholds.LINEAR[0] < order < thresholds.LINEAR[1] and not kinks:
        complete = sum(map(len, outcome.estimates)) == context.theta.size
        allowed = max(context.judge.tolerance, verdicts.bound if complete else 0.0)
        allowed *= float(np.linalg.norm(context.analytic.flat)) * float(np.abs(direction).max())
        back, near = _remainders(context, direction, np.array([-t, t / NEARER])).tolist()
        # A kink at theta leaves a linear remainder on one side; an error of the gradient one of either sign on both.
        two_sided = abs(signed[k] + back) < abs(signed[k]) / thresholds.CONTRADICTS
        # Steps longer than an oscillation leave one as large as g.v; nearer by it falls.
        stays = abs(near) + thresholds.TAYLOR_CLEAR * float(errors[k]) > 0.5 * slope * t / NEARER
        if slope > thresholds.CONTRADICTS * allowed and two_sided and stays:
            said = _PASSED if not complete else _PASSED_IN_FULL
            return Finding(Kind.TAYLOR, None, said.format(order=order), evidence)
    if verdicts.verdict.refuted and order > thresholds.SQUARE:
        claimed = abs(sum(_claimed(context, found, direction) for found in outcome.estimates))
        if claimed > thresholds.CONTRADICTS * (slope + float(errors[k]) / t):
            # A linear and a square term of opposite signs may cancel at one step, but not at another as well.
            near = abs(float(_remainders(context, direction, np.array([t / CLOSER]))[0]))
            if claimed <= thresholds.CONTRADICTS * (near + float(errors[k])) / (t / CLOSER):
                return None
            return Finding(Kind.TAYLOR, None, _REFUSED.format(order=order), evidence | {"claimed": claimed})
    return None


_PASSED = (
    "The Taylor test contradicts this pass: along a random direction the remainder falls with the power {order:.2f} of "
    "the step, as with a wrong gradient, not 2. An error where nothing was measured? Check every coordinate with "
    "mode='full', or screen with mode='screen'."
)
_PASSED_IN_FULL = (
    "The Taylor test contradicts this pass: along a random direction the remainder falls with the power {order:.2f} of "
    "the step, as with a wrong gradient, not 2, though every coordinate was measured. Does the loss bend on a scale "
    "far below the parameters (sqrt(x + 1e-12), a log near zero)? Then no step along a direction is short enough."
)
_REFUSED = (
    "The Taylor test contradicts the errors measured, so they prove nothing: along a random direction the remainder "
    "falls with the power {order:.2f} of the step, as with a right gradient. Does the loss differ from itself at short "
    "steps (kinks, jumps, a noise that was not seen)?"
)


def _claimed(context: Context, found: Estimates, direction: FloatArray) -> float:
    """Return the slope that the errors measured in a block must leave along the direction."""
    rows = np.flatnonzero(np.isfinite(found.value))
    places = found.places(rows)
    return float((context.analytic.flat[places] - found.value[rows]) @ direction[places])
