"""The reference engine: one coordinate at a time, its change carried through everything above it.

What lies below the coordinate's layer is cached, as it does not change. The layer's own output moves by exactly h times
the coordinate's input; the operators above give the exact difference of their output, whatever the size of the step,
and the loss likewise: J(theta + h e) - J(theta - h e) is never formed from two nearly equal losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import CROSSED, Operator, Weighted
from fastcheck.networks.slopes import TINY, Slopes, Tally, chunks, one_sided, widest

__all__ = ["Task", "measure"]


@dataclass(frozen=True)
class Task:
    """Coordinates of one block.

    Attributes
    ----------
    operator : Weighted
    after : tuple of Operator
        What its output goes through.
    name : str
        The block.
    flat : int64, shape (m,)
        Places in the canonical block.
    at : int64, shape (m,)
        The same as coordinates of theta.
    """

    operator: Weighted
    after: tuple[Operator, ...]
    name: str
    flat: IntArray
    at: IntArray


def measure(task: Task, loss: LossAt, factor: float, h: float, tally: Tally) -> None:
    """Measure the coordinates of a task with step h, and with a tiny one where h passes a kink."""
    samples = task.operator.out.shape[-1]
    width = 4 * samples * widest(task.after, task.operator.out[..., 0].size)
    for part in chunks(np.arange(len(task.flat)), width):
        _measure_chunk(task, part, loss, factor, h, tally)


def _measure_chunk(task: Task, part: IntArray, loss: LossAt, factor: float, h: float, tally: Tally) -> None:
    def slopes(where: IntArray, step: float) -> Slopes:
        return one_sided(task.after, loss, partial(task.operator.impulse, task.name, task.flat[where]), step)

    first = slopes(part, h)
    at = task.at[part]
    tally.value[at] = factor * (first.right + first.left).sum(axis=1) / 2
    scale = factor * (np.abs(first.right) + np.abs(first.left)).sum(axis=1) / 2
    # A derivative that came out small has the rounding of the larger terms it is the rest of: those of its neighbours.
    tally.noise[at] = tally.rounding(scale + np.sqrt(np.mean(scale**2)), len(task.after))
    met = first.bits.any(axis=1)
    if met.any():
        again = slopes(part[met], TINY)
        crossed = np.asarray((first.bits[met] & CROSSED).any(axis=1))
        tally.settle(at[met], factor * again.right.sum(axis=1), factor * again.left.sum(axis=1), crossed)
