"""The unit engine: all weights into a unit act through one number per sample, and that number is differenced.

For a unit i of a layer and a sample b, z[i, b] is moved by +h and -h; the changes are carried through the layers
above as differences and give D[i, b], the central difference of sample b's loss. As z is linear in the layer's
parameters, the derivative by W[i, j] is sum_b D[i, b] x[j, b]: one matrix product for the whole layer. All samples of
a unit move at once, since no sample acts on another; where one does (batch normalisation above), samples are moved one
by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.networks.fused import ArgmaxCells
from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import AT_KINK, CROSSED, Change, Operator, Starts, Weighted, fast_through
from fastcheck.networks.slopes import TINY, Slopes, chunks, one_sided, widest

__all__ = ["Field", "again", "coupled", "settle", "shards", "unsure"]

_CHUNK = 3 * 2**16  # numbers carried at once by the widest layer: about 1.5 MB, near the size of a core's cache
_HELD = 2**25  # numbers that the channels of one position may carry at once, if they covered whole maps: 256 MB


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

    @cached_property
    def runs(self) -> tuple[slice, ...]:
        """The wanted features as slices, each of so few that its changes can be held."""
        n = max(1, _HELD // (self.shape[1] * widest(self.after, 1)))
        runs = _runs(self.wanted)
        return tuple(slice(i, min(i + n, run.stop)) for run in runs for i in range(run.start, run.stop, n))

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
    everywhere = np.ones(field.central.shape[:-1], bool)
    if not coupled(field.after):
        starts = ArgmaxCells.of(field.after) or Starts(field.operator, field.after)
        yield from _fast_shards(field, loss, h, everywhere, starts, first=True)
    elif field.central.ndim == 2:
        n = max(1, _CHUNK // (loss.values.size * widest(field.after, 1)))
        samples = [np.arange(loss.values.size)[i : i + n] for i in range(0, loss.values.size, n)]
        groups = [(int(row), part) for row in field.wanted for part in samples]
        yield from _bundles(groups, lambda group: _single(field, loss, h, *group))
    else:
        field.far[field.wanted] = True
        yield from _all_pairs(field, loss, h)


def unsure(field: Field, loss: LossAt, h: float) -> Iterator[Job]:
    """Cut the measurement, one by one, of what could not be moved together or went too far among coupled samples."""
    if field.far.any() and coupled(field.after):
        yield from _all_pairs(field, loss, h)
    elif field.far.any() and ArgmaxCells.of(field.after):
        yield from _one_by_one(field, loss, h)


def _all_pairs(field: Field, loss: LossAt, h: float) -> Iterator[Job]:
    """Cut the exact measurement of what is far, which settles it."""
    pairs = np.flatnonzero(field.far)
    field.far[:] = False
    for part in np.array_split(pairs, min(16, max(1, len(pairs)))):
        yield partial(_pairs, field, loss, h, part)


def again(field: Field, loss: LossAt) -> Iterator[Job]:
    """Cut the measurement, with a tiny step, of what was far into shares; what is still far then stands at a kink."""
    if field.far.any() and not coupled(field.after):
        yield from _one_by_one(field, loss, TINY)


def _one_by_one(field: Field, loss: LossAt, h: float) -> Iterator[Job]:
    """Cut another measurement of what is far, each position of a map by itself."""
    wanted = np.asarray(field.far.any(axis=-1))
    yield from _fast_shards(field, loss, h, wanted, Starts(field.operator, field.after), first=False)


def _fast_shards(
    field: Field, loss: LossAt, h: float, wanted: NDArray[np.bool_], starts: Starts, first: bool
) -> Iterator[Job]:
    """Share out the wanted entries, shape (*features,)."""
    if field.central.ndim == 2:
        rows = field.wanted[wanted[field.wanted]]
        size = max(1, _CHUNK // (loss.values.size * widest(field.after, 1)))
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        yield from _bundles(groups, lambda group: _rows(field, loss, h, group, first))
        return
    positions = [(int(y), int(x)) for y, x in np.argwhere(starts.holding(wanted).any(axis=0))]
    yield from _bundles(positions, lambda position: _position(field, loss, h, position, starts, first))


def _bundles(groups: Sequence[_Group], run: Callable[[_Group], None]) -> Iterator[Job]:
    def run_all(part: Sequence[_Group]) -> None:
        for group in part:
            run(group)

    size = max(1, len(groups) // 24)
    for start in range(0, len(groups), size):
        yield partial(run_all, groups[start : start + size])


def _runs(rows: IntArray) -> Iterator[slice]:
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


def _steps(field: Field, rows: slice, h: float) -> FloatArray:
    """Return the steps of some features, one each for all samples, shape (m, 1, B)."""
    return np.full((rows.stop - rows.start, 1, field.shape[1]), h)


def _rows(field: Field, loss: LossAt, h: float, wanted: IntArray, first: bool) -> None:
    """Difference some units of a vector, all samples of a unit at once."""
    for rows in _runs(wanted):
        change = Change(_steps(field, rows, h), rows)
        field.write((rows,), *_slopes(field.after, field.operator, loss, change, h), first)


def _position(field: Field, loss: LossAt, h: float, position: tuple[int, int], starts: Starts, first: bool) -> None:
    """Difference one position of a map, or one cell of the pool above, in each wanted channel."""
    y, x = position
    for rows in field.runs:
        change = starts.start(rows, y, x, _steps(field, rows, h))
        found = _slopes(starts.after, starts.operator, loss, change, h)
        field.write(*starts.share(rows, y, x, *found, h), first)


def _slopes(
    after: tuple[Operator, ...], operator: Operator, loss: LossAt, start: Change, h: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Carry changes of h to the loss; return the central slopes (M, B), M = m S, and which went too far."""
    m, s, b = start.many
    far = np.zeros((m * s, b), np.uint8)
    change = fast_through(after, start, far)
    top = after[-1] if after else operator
    d = np.ascontiguousarray(change.everywhere(top.out.shape[:-1])).reshape(-1, m * s, b)
    return loss.fast(d, far) / h, far > 0


def _single(field: Field, loss: LossAt, h: float, row: int, samples: IntArray) -> None:
    """Difference one unit of a vector whose samples act on each other: one sample at a time, over the whole batch."""
    start = np.zeros((1, len(samples), field.shape[1]))
    start[0, np.arange(len(samples)), samples] = h
    slopes, far = _slopes(field.after, field.operator, loss, Change(start, slice(row, row + 1)), h)
    field.central[row, samples] = slopes.sum(axis=1)
    field.far[row, samples] = far.any(axis=1)


def _pairs(field: Field, loss: LossAt, h: float, pairs: IntArray) -> None:
    """Difference flat (entry, sample) pairs by the exact formulas, one at a time, over the whole batch."""
    features, samples = field.shape
    for part in chunks(pairs, 4 * samples * widest(field.after, int(np.prod(features)))):
        move = _one_hot(field.shape, *np.divmod(part, samples))
        slopes = one_sided(field.after, loss, move, h)
        bits = np.bitwise_or.reduce(slopes.bits, axis=1)
        if bits.any():
            bits &= CROSSED
            slopes = one_sided(field.after, loss, move, TINY)
            bits |= AT_KINK * slopes.bits.any(axis=1)
        field.central.reshape(-1)[part] = (slopes.right + slopes.left).sum(axis=1) / 2
        field.bits.reshape(-1)[part] = bits


# -- kinks ------------------------------------------------------------------------------------------------------------


_ASKED = 1024  # entries of a field that are asked whether they crossed a kink; the others are taken to have


def settle(field: Field, loss: LossAt, crossed: NDArray[np.bool_], h: float) -> None:
    """Mark kinks, and measure one-sided slopes where each coordinate acts through one entry of a sample.

    The field was measured at the first step, h, and `again`. What was far at the first, `crossed` of shape (*features,
    B), crossed a kink, or left the reach of the formulas of a curved function.
    """
    field.bits[field.far] |= AT_KINK
    if loss.kinked or any(operator.kinked for operator in field.after):
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
        yield part, one_sided(after, here, _one_hot((features, 1), part, np.zeros_like(part)), h)


def _one_hot(shape: tuple[tuple[int, ...], int], entry: IntArray, sample: IntArray) -> Callable[[float], FloatArray]:
    """Return step -> differences of some features and samples in which change k moves entry k of sample k alone."""
    features, samples = shape

    def move(h: float) -> FloatArray:
        d: FloatArray = np.zeros((int(np.prod(features)), len(entry), samples))
        d[entry, np.arange(len(entry)), sample] = h
        return d.reshape(*features, len(entry), samples)

    return move
