"""The two engines at the level of blocks: what is wanted, who measures it, where it is written.

The unit engine stands in `fastcheck.networks.unit`. The reference engine takes one coordinate at a time, and carries
its change through everything above it. What lies below the coordinate's layer is cached, as it does not change. The
layer's own output moves by exactly h times the coordinate's input; the operators above give the exact difference of
their output, whatever the size of the step, and the loss likewise: J(theta + h e) - J(theta - h e) is never formed
from two nearly equal losses.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Measured, Status
from fastcheck.networks import unit
from fastcheck.networks.losses import LossAt
from fastcheck.networks.network import ForwardPass, Network
from fastcheck.networks.operators import AT_KINK, CROSSED, Operator, Weighted
from fastcheck.networks.slopes import STEP, TINY, Slopes, Tally, chunks, one_sided, widest
from fastcheck.networks.unit import Field, settle
from fastcheck.parameters import Parameters

__all__ = ["ENGINES", "Request"]

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Task:
    """Coordinates of one block, whose operator's output goes through those after it.

    They are places in the canonical block, `flat`, and the same as coordinates of theta, `at`; both int64 of shape
    (m,). `terms` is how large the terms of their derivatives are, shape (m,).
    """

    operator: Weighted
    after: tuple[Operator, ...]
    name: str
    flat: IntArray
    at: IntArray
    terms: FloatArray

    def split(self, count: int) -> Iterator[Task]:
        """Cut it into at most so many."""
        for part in np.array_split(np.arange(len(self.flat)), min(count, len(self.flat))):
            yield replace(self, flat=self.flat[part], at=self.at[part], terms=self.terms[part])


def _measure(task: Task, loss: LossAt, factor: float, h: float, tally: Tally) -> None:
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
    tally.noise[at] = tally.rounding(scale + task.terms[part], len(task.after))
    met = first.bits.any(axis=1)
    if met.any():
        again = slopes(part[met], TINY)
        crossed = np.asarray((first.bits[met] & CROSSED).any(axis=1))
        tally.settle(at[met], factor * again.right.sum(axis=1), factor * again.left.sum(axis=1), crossed)


_ALONE = 0.03  # seconds of work left that are not worth starting threads for


@dataclass(frozen=True)
class Request:
    """Everything one measurement needs; ``whole`` says that all coordinates are wanted."""

    network: Network
    forward: ForwardPass
    layout: Parameters
    theta: FloatArray
    chosen: IntArray
    whole: bool
    step: float
    workers: int

    @cached_property
    def term_sizes(self) -> dict[Weighted, FloatArray]:
        """See `ForwardPass.term_sizes`."""
        return self.forward.term_sizes()

    def canonical(self, name: str, part: NDArray[T]) -> NDArray[T]:
        """Return the canonical view of a block's part of a vector like theta."""
        block = self.layout[name]
        where, slot = next((where, slot) for where, slot in self.network.uses() if slot.name == name)
        return slot.canonical(part.reshape(block.shape, order=block.order), where)  # type: ignore[call-overload]

    def coordinates_of(self, name: str) -> IntArray:
        """Return the coordinate of theta of every entry of a canonical block, flat."""
        block = self.layout[name]
        return self.canonical(name, np.arange(block.start, block.stop)).ravel()

    def tasks(self, operator: Weighted, after: tuple[Operator, ...], marked: NDArray[np.bool_]) -> list[Task]:
        """Return the coordinates of an operator's blocks that are marked, ``marked`` of shape (P,)."""
        found = []
        terms = operator.contract(self.forward.factor * self.term_sizes[operator], np.abs)
        for name in operator.blocks:
            at = self.coordinates_of(name)
            flat = np.flatnonzero(marked[at])
            if len(flat):
                found.append(Task(operator, after, name, flat, at[flat], terms[name].ravel()[flat]))
        return found

    def wanted(self) -> NDArray[np.bool_]:
        """Return a mask (P,) of the chosen coordinates."""
        mask = np.zeros(self.layout.size, bool)
        mask[self.chosen] = True
        return mask

    def finish(self, tally: Tally) -> Measured:
        """Add the penalties and return the chosen coordinates."""
        rounded = tally.of_loss(self.theta) if self.whole else math.nan
        l2, l1 = (self.network.penalties(p, "") for p in (self.network.l2, self.network.l1))
        for block in self.layout.blocks:
            if block.name in l2 or block.name in l1:
                part = self.theta[block.slice]
                tally.penalise(block.slice, part, l2.get(block.name, 0.0), l1.get(block.name, 0.0), self.step)
        # Truncation: h^2 times third derivatives. Every difference that meets a nonlinearity is held below 2^-26, whose
        # square is one unit in the last place: as much again as the rounding of one operation.
        return tally.measured(self.chosen, slice(None) if self.whole else self.chosen, 0.25, rounded)


def _run(jobs: list[Callable[[], None]], workers: int) -> None:
    """Run independent jobs in this thread, or over several when the first ones show that it is worth it.

    A pool of the standard library, and not joblib's: that looks for results every hundredth of a second, which is as
    long as a whole measurement of a small net takes.
    """
    waiting = deque(jobs)
    started = time.perf_counter()
    left = 0.0
    while waiting and (workers == 1 or left < _ALONE):
        waiting.popleft()()
        spent = time.perf_counter() - started
        left = spent / (len(jobs) - len(waiting)) * len(waiting)
    if waiting:
        with ThreadPoolExecutor(workers, "fastcheck") as pool:
            for _ in pool.map(lambda job: job(), waiting):
                pass


def _by_coordinate(request: Request) -> Measured:
    tally = Tally(request.layout.size)
    mask = request.wanted()
    tasks = [task for operator, after in request.forward.paths() for task in request.tasks(operator, after, mask)]
    _reference(request, tasks, tally)
    found = request.finish(tally)
    if request.step <= STEP:
        return found
    near = _by_coordinate(replace(request, step=STEP))
    return replace(found, truncation=found.truncation + np.abs(found.value - near.value))


def _reference(request: Request, tasks: list[Task], tally: Tally) -> None:
    forward = request.forward
    shares = [share for task in tasks for share in task.split(16)]
    _run([partial(_measure, s, forward.loss, forward.factor, request.step, tally) for s in shares], request.workers)


def _by_unit(request: Request) -> Measured:
    tally = Tally(request.layout.size)
    mask = None if request.whole else request.wanted()
    fields, direct = _fields(request, mask)
    loss, h = request.forward.loss, request.step
    _run([job for field in fields for job in unit.shards(field, loss, h)], request.workers)
    _run([job for field in fields for job in unit.unsure(field, loss, h)], request.workers)
    crossed = [field.far.copy() for field in fields]
    _run([job for field in fields for job in unit.again(field, loss)], request.workers)
    _run(
        [partial(settle, field, loss, met, h) for field, met in zip(fields, crossed, strict=True) if met.any()],
        request.workers,
    )
    # In this thread: two that fill large arrays at once wait for each other's pages of memory.
    again = [task for field in fields for task in _contract(request, field, tally)]
    # A kink seen from entries that move together in one coordinate is decided by moving that coordinate.
    _reference(request, [*direct, *again], tally)
    return request.finish(tally)


def _fields(request: Request, mask: NDArray[np.bool_] | None) -> tuple[list[Field], list[Task]]:
    """Return the fields to measure, and the coordinates that are cheaper one by one (coupled samples, few of them)."""
    fields: list[Field] = []
    direct: list[Task] = []
    for operator, after in request.forward.paths():
        rows = np.arange(len(operator.out))
        if mask is not None or unit.coupled(after):
            tasks = request.tasks(operator, after, np.ones(request.layout.size, bool) if mask is None else mask)
            if not tasks:
                continue
            if unit.coupled(after) and sum(len(task.flat) for task in tasks) <= operator.out.size:
                direct += tasks
                continue
            if mask is not None:
                rows = np.unique(np.concatenate([operator.rows_of(task.name, task.flat) for task in tasks]))
        fields.append(Field(operator, after, rows))
    return fields, direct


def _contract(request: Request, field: Field, tally: Tally) -> list[Task]:
    """Write the slopes by the parameters; return the coordinates that a kink leaves to the reference."""
    operator, factor = field.operator, request.forward.factor
    value = operator.contract(field.central)
    scale = operator.contract(np.abs(field.central) + request.term_sizes[operator], np.abs)
    for name in operator.blocks:
        part = request.layout[name].slice
        values, noise = request.canonical(name, tally.value[part]), request.canonical(name, tally.noise[part])
        np.multiply(value[name].reshape(values.shape), factor, out=values)
        noise[...] = tally.rounding(factor * scale[name].reshape(noise.shape), len(field.after))
    return _kinks(request, field, tally) if field.bits.any() else []


def _kinks(request: Request, field: Field, tally: Tally) -> list[Task]:
    operator, factor = field.operator, request.forward.factor
    crossed = operator.contract(_marks(field.bits & CROSSED), _nonzero)
    kinked = operator.contract(_marks(field.bits & AT_KINK), _nonzero)
    if operator.single and not unit.coupled(field.after):
        # One entry per sample moves, along +x or -x: the directional derivative to each side is exact.
        up, down = operator.contract(field.right, _positive), operator.contract(field.left, _negative)
        back, fore = operator.contract(field.left, _positive), operator.contract(field.right, _negative)
        for name in operator.blocks:
            met = ((crossed[name] > 0) | (kinked[name] > 0)).ravel()
            at = request.coordinates_of(name)[met]
            right, left = (up[name] + down[name]).ravel()[met], (back[name] + fore[name]).ravel()[met]
            tally.settle(at, factor * right, factor * left, crossed[name].ravel()[met] > 0)
        return []
    marked = np.zeros(request.layout.size, bool)
    for name in operator.blocks:
        at = request.coordinates_of(name)
        marked[at] = kinked[name].ravel() > 0
        tally.status[at[crossed[name].ravel() > 0]] = Status.CROSSED
    if not request.whole:
        marked &= request.wanted()
    return request.tasks(operator, field.after, marked)


def _marks(bits: NDArray[np.uint8]) -> FloatArray:
    return np.asarray(bits > 0, np.float64)


def _nonzero(x: FloatArray) -> FloatArray:
    return np.asarray((x != 0) * 1.0)


def _positive(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0.0)


def _negative(x: FloatArray) -> FloatArray:
    return np.minimum(x, 0.0)


ENGINES: dict[str, Callable[[Request], Measured]] = {"unit": _by_unit, "coordinate": _by_coordinate}
