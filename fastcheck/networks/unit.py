"""The unit engine: all weights into a unit act through one number per sample, and that number is differenced.

For a unit i of a layer and a sample b, z[i, b] is moved by +h and -h; the changes are carried through the layers
above as differences and give D[i, b], the central difference of sample b's loss. As z is linear in the layer's
parameters, the derivative by W[i, j] is sum_b D[i, b] x[j, b]: one matrix product for the whole layer. All samples of
a unit move at once, since no sample acts on another; where one does (batch normalisation above), samples are moved one
by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import (
    AT_KINK,
    CROSSED,
    Bend,
    Change,
    FloatArray,
    IntArray,
    Operator,
    Weighted,
    fast_through,
)
from fastcheck.networks.slopes import TINY, Slopes, chunks, one_sided, widest
from fastcheck.networks.unweighted import MaxPool, Residue
from fastcheck.networks.winners import Winners

__all__ = ["Field", "Job", "again", "coupled", "settle", "shards"]

_CHUNK = 3 * 2**16  # numbers carried at once by the widest layer: about 1.5 MB, near the size of a core's cache
_ASKED = 1024  # entries of a field that are asked whether they crossed a kink; the others are taken to have


Job = Callable[[], None]
"""A share of the measurement of a field: it writes its own part of the field's arrays."""

_Group = TypeVar("_Group")


class Field:
    """Slopes of the samples' losses by every entry of one operator's output.

    Attributes
    ----------
    operator : Weighted
    after : tuple of Operator
    wanted : int64
        Leading features to measure.
    central : float64, shape (*features, B)
    far : bool, shape (*features, B)
        Entries whose differences left the reach of the fast formulas at the last step tried.
    bits : uint8, shape (*features, B)
    right, left : float64, shape (*features, B)
        One-sided slopes; they differ from ``central`` only at kinks.
    """

    def __init__(self, operator: Weighted, after: tuple[Operator, ...], wanted: IntArray) -> None:
        self.operator, self.after, self.wanted = operator, after, wanted
        shape = operator.out.shape
        self.central: FloatArray = np.zeros(shape)
        self.far = np.zeros(shape, bool)
        self.bits = np.zeros(shape, np.uint8)
        self.right = self.left = self.central

    @property
    def shape(self) -> tuple[tuple[int, ...], int]:
        """Features, and number of samples B."""
        return self.central.shape[:-1], self.central.shape[-1]

    def write(self, index: tuple[slice | int, ...], slopes: FloatArray, far: NDArray[np.bool_], first: bool) -> None:
        """Write slopes and marks, shape (m, B); a second measurement replaces only what was far."""
        self.central[index] = slopes if first else np.where(self.far[index], slopes, self.central[index])
        self.far[index] = far if first else far & self.far[index]


def coupled(after: tuple[Operator, ...]) -> bool:
    """Whether samples act on each other on the way to the loss."""
    return any(operator.couples for operator in after)


def shards(field: Field, loss: LossAt, h: float) -> Iterator[Job]:
    """Cut the first measurement of a field into independent shares; their number does not depend on the workers."""
    if coupled(field.after):
        entries = _entries(field)
        for part in np.array_split(entries, min(16, max(1, len(entries)))):
            yield partial(_pairs, field, loss, h, part)
    else:
        yield from _fast_shards(field, loss, h, np.ones(field.central.shape[:-1], bool), first=True)


def again(field: Field, loss: LossAt) -> Iterator[Job]:
    """Cut the measurement, with a tiny step, of what was far into shares; what is still far then stands at a kink."""
    if field.far.any() and not coupled(field.after):
        yield from _fast_shards(field, loss, TINY, np.asarray(field.far.any(axis=-1)), first=False)


def _fast_shards(field: Field, loss: LossAt, h: float, where: NDArray[np.bool_], first: bool) -> Iterator[Job]:
    """Share out the entries of ``where``, shape (*features,)."""
    if field.central.ndim == 2:
        rows = field.wanted[where[field.wanted]]
        size = max(1, _CHUNK // (2 * loss.values.size * widest(field.after, 1)))
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        yield from _bundles(groups, lambda group: _rows(field, loss, h, group, first))
        return
    winners = Winners.of(field.after, h)
    if winners:
        where = winners.cells(where)
    places = [(int(y), int(x)) for y, x in np.argwhere(where.any(axis=0))]
    yield from _bundles(places, lambda place: _place(field, loss, h, place, winners, first))


def _bundles(groups: Sequence[_Group], run: Callable[[_Group], None]) -> Iterator[Job]:
    def run_all(part: Sequence[_Group]) -> None:
        for group in part:
            run(group)

    size = max(1, len(groups) // 24)
    for start in range(0, len(groups), size):
        yield partial(run_all, groups[start : start + size])


def _entries(field: Field) -> IntArray:
    """Return the flat places of the wanted entries of (*features,)."""
    per_row = field.central[0, ..., 0].size
    return np.asarray((field.wanted[:, None] * per_row + np.arange(per_row)).ravel())


def _runs(rows: IntArray) -> Iterator[slice]:
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


def _steps(rows: slice, samples: int, h: float) -> FloatArray:
    start = np.empty((rows.stop - rows.start, 2, samples))
    start[:, 0], start[:, 1] = h, -h
    return start


def _rows(field: Field, loss: LossAt, h: float, wanted: IntArray, first: bool) -> None:
    """Difference some units of a vector, all samples of a unit at once."""
    for rows in _runs(wanted):
        change = Change(_steps(rows, loss.values.size, h), rows)
        field.write((rows,), *_central(field.after, field.operator, loss, change, h), first)


def _place(field: Field, loss: LossAt, h: float, place: tuple[int, int], winners: Winners | None, first: bool) -> None:
    """Difference one place of a map, or one cell of the pool above, in each wanted channel."""
    y, x = place
    for rows in _runs(field.wanted):
        if winners is None:
            change = Change(_steps(rows, loss.values.size, h), rows, (y, y + 1, x, x + 1))
            field.write((rows, y, x), *_central(field.after, field.operator, loss, change, h), first)
        else:
            found = _central(winners.after, winners.pool, loss, winners.start(rows, y, x), h)
            for at, slopes, far in winners.share(rows, y, x, *found):
                field.write((rows, *at), slopes, far, first)


def _central(
    after: tuple[Operator, ...], operator: Operator, loss: LossAt, start: Change, h: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Carry changes +h and -h (axis S) to the loss; return central differences and which went too far, (m, B)."""
    m, s, b = start.many
    far = np.zeros((m * s, b), np.uint8)
    change = fast_through(after, start, far)
    top = after[-1] if after else operator
    d = change.everywhere(top.out.shape[:-1]).reshape(-1, m * s, b)
    moved = loss.fast(np.ascontiguousarray(d), far).reshape(m, s, b)
    return (moved[:, 0] - moved[:, 1]) / (2 * h), np.asarray(far.reshape(m, s, b).any(axis=1))


def settle(field: Field, loss: LossAt, crossed: NDArray[np.bool_], h: float) -> None:
    """Mark kinks, and measure one-sided slopes where each coordinate acts through one entry of a sample.

    Parameters
    ----------
    field : Field
        Measured at the first step and `again`.
    crossed : bool, shape (*features, B)
        What was far at the first step, h: it crossed a kink, or left the reach of the formulas of a curved function.
    """
    field.bits[field.far] |= AT_KINK
    if loss.kinked or any(_kinked(operator) for operator in field.after):
        samples = field.shape[1]
        bits = field.bits.reshape(-1, samples)
        resolved = np.argwhere((crossed & ~field.far).reshape(-1, samples))
        for b in np.unique(resolved[:_ASKED, 1]):
            part = resolved[:_ASKED][resolved[:_ASKED, 1] == b, 0]
            for entries, slopes in _sample_slopes(field, loss, int(b), part, h):
                bits[entries, b] |= slopes.bits[:, 0] & CROSSED
        bits[tuple(resolved[_ASKED:].T)] |= CROSSED
    if field.operator.single and field.far.any():
        _sides(field, loss)


def _sides(field: Field, loss: LossAt) -> None:
    """Measure the slopes to both sides of what is at a kink."""
    field.right, field.left = field.central.copy(), field.central.copy()
    far, right, left = (array.reshape(-1, field.shape[1]) for array in (field.far, field.right, field.left))
    for b in np.flatnonzero(far.any(axis=0)):
        for entries, slopes in _sample_slopes(field, loss, int(b), np.flatnonzero(far[:, b]), TINY):
            right[entries, b], left[entries, b] = slopes.right[:, 0], slopes.left[:, 0]


def _sample_slopes(
    field: Field, loss: LossAt, b: int, entries: IntArray, h: float
) -> Iterator[tuple[IntArray, Slopes]]:
    """Yield the one-sided slopes of one sample by some flat entries, by the exact formulas."""
    features, _ = field.shape
    one = np.array([b])
    after, here = [operator.select(one) for operator in field.after], loss.select(one)
    for part in chunks(entries, 4 * widest(field.after, int(np.prod(features)))):
        yield part, one_sided(after, here, _one_hot(features, part), h)


def _kinked(operator: Operator) -> bool:
    inner = operator.inner if isinstance(operator, Residue) else ()
    return (
        (isinstance(operator, Bend) and operator.activation.kinked)
        or isinstance(operator, MaxPool)
        or any(_kinked(part) for part in inner)
    )


def _one_hot(features: tuple[int, ...], entries: IntArray) -> Callable[[float], FloatArray]:
    """Return step -> differences of one sample in which change k moves entry k."""

    def move(h: float) -> FloatArray:
        d: FloatArray = np.zeros((int(np.prod(features)), len(entries), 1))
        d[entries, np.arange(len(entries))] = h
        return d.reshape(*features, len(entries), 1)

    return move


def _pairs(field: Field, loss: LossAt, h: float, entries: IntArray) -> None:
    """Difference entries whose samples act on each other: one (entry, sample) at a time, over the whole batch."""
    features, samples = field.shape
    total = int(np.prod(features))
    pairs = (entries[:, None] * samples + np.arange(samples)).ravel()
    for part in chunks(pairs, 4 * samples * widest(field.after, total)):

        def move(step: float, part: IntArray = part) -> FloatArray:
            d = np.zeros((total, len(part), samples))
            entry, sample = np.divmod(part, samples)
            d[entry, np.arange(len(part)), sample] = step
            return d.reshape(*features, len(part), samples)

        slopes = one_sided(field.after, loss, move, h)
        bits = np.bitwise_or.reduce(slopes.bits, axis=1)
        if bits.any():
            bits &= CROSSED
            slopes = one_sided(field.after, loss, move, TINY)
            bits |= AT_KINK * slopes.bits.any(axis=1)
        field.central.reshape(-1)[part] = (slopes.right + slopes.left).sum(axis=1) / 2
        field.bits.reshape(-1)[part] = bits
