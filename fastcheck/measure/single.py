"""Single coordinates, chosen by something else than the full plan: measured quickly, or down the ladder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Estimate, Status
from fastcheck.measure.ladder import LADDER, look_again
from fastcheck.measure.probes import Probing

__all__ = ["is_wrong", "measured", "quickly"]

STEPS = (2.0**-10, 2.0**-13)  # of a quick measurement, in units of the parameters


def quickly(plan: Probing, number: int, place: int) -> Estimate:
    """Measure one coordinate of a block with two steps; 4 evaluations, and good enough to say whether to look again.

    Parameters
    ----------
    plan : Probing
        The loss and the settings.
    number : int
        Of the block.
    place : int
        In theta.
    """
    steps = float(_scales(plan, number, np.array([place]))[0]) * np.array(STEPS)
    at = np.full(len(steps), place, dtype=np.int64)
    values = np.full((len(steps), 2), np.nan)  # where the run is stopped before
    for rows, losses in plan.run.grid(plan.evaluator, at, steps, (1.0, -1.0)):
        values[rows] = losses
    theta = plan.evaluator.theta[at]
    achieved = plan.evaluator.represent(at, theta + steps) - plan.evaluator.represent(at, theta - steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        long, short = ((values[:, 0] - values[:, 1]) / achieved).tolist()
    rounding = plan.uncertainty(float(steps[-1]))
    return Estimate(short, rounding, abs(long - short), np.nan, np.nan, Status.SMOOTH)


def measured(plan: Probing, number: int, places: Sequence[int]) -> dict[int, Estimate]:
    """Measure coordinates of a block down the ladder of steps; 16 evaluations each."""
    at = np.array(sorted(set(places)), dtype=np.int64)
    steps = _scales(plan, number, at) / LADDER[0]  # the ladder then begins at the size of the parameters
    seen = look_again(plan.run, plan.evaluator, plan.base, at, steps, plan.noise.error(plan.judge.z))
    return dict(zip(at.tolist(), seen, strict=False))  # the run may have been stopped


def _scales(plan: Probing, number: int, places: IntArray) -> FloatArray:
    """Return the size of each coordinate's parameter: that of its block, or its own where they differ too much."""
    if number in plan.uneven:
        return plan.sizes(number, plan.evaluator.theta[places])
    return np.full(len(places), plan.scales[number])


def is_wrong(plan: Probing, place: int, resolved: Estimate) -> bool:
    """Say whether the analytic derivative of a measured coordinate is suspicious or wrong."""
    return plan.judge.refutes(resolved, float(plan.analytic.flat[place]))
