"""The unit engine: all weights into a unit act through one number per sample, so that number is differenced.

For a unit i of a layer and a sample b, z[i, b] is moved by +h and -h; the changes are carried through the layers above
as differences and give D[i, b], the central difference of sample b's loss. As z is linear in the layer's parameters, the
derivative by W[i, j] is sum_b D[i, b] x[j, b]: one matrix product for the whole layer. All samples of a unit move at
once, since no sample acts on another; where one does (batch normalisation above), samples are moved one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.networks.losses import LossAt
from fastcheck.networks.operators import (
    AT_KINK,
    CROSSED,
    Bits,
    Change,
    FloatArray,
    IntArray,
    Operator,
    Weighted,
    fast_through,
)
from fastcheck.networks.slopes import TINY, Slopes, chunks, one_sided, widest
from fastcheck.networks.winners import Winners

__all__ = ["Field", "Shard", "coupled", "finish", "shards"]

_CHUNK = 3 * 2**16  # numbers carried at once by the widest layer: about 1.5 MB, near the size of a core's cache


class Field:
    """Slopes of the samples' losses by every entry of one operator's output.

    Attributes
    ----------
    operator : Weighted
    after : tuple of Operator
    wanted : int64
        Leading features to measure.
    central, right, left : float64, shape (*features, B)
        ``right`` and ``left`` differ from ``central`` only where a kink was met.
    far : bool, shape (*features,)
        Entries whose differences left the reach of the fast formulas.
    bits : uint8, shape (*features, B)
    """

    def __init__(self, operator: Weighted, after: tuple[Operator, ...], wanted: IntArray) -> None:
        self.operator, self.after, self.wanted = operator, after, wanted
        shape = operator.out.shape
        self.central = np.zeros(shape)
        self.far = np.zeros(shape[:-1], bool)
        self.bits = np.zeros(shape, np.uint8)
        self.right = self.left = self.central

    def split(self) -> None:
        """Give the one-sided slopes arrays of their own."""
        if self.right is self.central:
            self.right, self.left = self.central.copy(), self.central.copy()


@dataclass(frozen=True)
class Shard:
    """A share of one field: a function without arguments that fills it in."""

    run: Callable[[], None]


def coupled(after: tuple[Operator, ...]) -> bool:
    """Whether samples act on each other on the way to the loss."""
    return any(operator.couples for operator in after)


def shards(field: Field, loss: LossAt, h: float) -> Iterator[Shard]:
    """Cut the measurement of a field into independent shares; their number does not depend on the workers."""
    if coupled(field.after):
        entries = _entries(field)
        for part in np.array_split(entries, min(16, max(1, len(entries)))):
            yield Shard(lambda part=part: _pairs(field, loss, h, part))  # type: ignore[misc]
    elif field.central.ndim == 2:
        size = max(1, _CHUNK // (2 * loss.values.size * widest(field.after, 1)))
        groups = [field.wanted[i : i + size] for i in range(0, len(field.wanted), size)]
        yield from _bundles(groups, lambda rows: _rows(field, loss, h, rows))
    else:
        yield from _map_shards(field, loss, h)


def _map_shards(field: Field, loss: LossAt, h: float) -> Iterator[Shard]:
    winners = Winners.of(field.after, h)
    height, width = winners.place if winners else field.central.shape[1:3]
    if winners:
        field.far |= winners.spread(field.far.shape)
    places = [(y, x) for y in range(height) for x in range(width)]
    yield from _bundles(places, lambda place: _place(field, loss, h, place, winners))


def _bundles(groups: list, run: Callable) -> Iterator[Shard]:  # type: ignore[type-arg]
    size = max(1, len(groups) // 24)
    for start in range(0, len(groups), size):
        part = groups[start : start + size]
        yield Shard(lambda part=part: [run(group) for group in part])  # type: ignore[misc]


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


def _rows(field: Field, loss: LossAt, h: float, wanted: IntArray) -> None:
    """Difference some units of a vector, all samples of a unit at once."""
    for rows in _runs(wanted):
        change = Change(_steps(rows, loss.values.size, h), rows)
        field.central[rows], field.far[rows] = _central(field.after, field.operator, loss, change, h)


def _place(field: Field, loss: LossAt, h: float, place: tuple[int, int], winners: Winners | None) -> None:
    """Difference one place of a map, or one cell of the pool above, in each wanted channel."""
    y, x = place
    for rows in _runs(field.wanted):
        if winners is None:
            change = Change(_steps(rows, loss.values.size, h), rows, (y, y + 1, x, x + 1))
            field.central[rows, y, x], field.far[rows, y, x] = _central(field.after, field.operator, loss, change, h)
            continue
        slopes, far = _central(winners.after, winners.pool, loss, winners.start(rows, y, x), h)
        winners.write(rows, y, x, slopes, field.central)
        k = winners.size
        field.far[rows, y * k : (y + 1) * k, x * k : (x + 1) * k] |= far[:, None, None]


def _central(
    after: tuple[Operator, ...], operator: Operator, loss: LossAt, start: Change, h: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Carry changes +h and -h (axis S) to the loss; return central differences (m, B), and which went too far (m,)."""
    m, s, b = start.many
    far = np.zeros(m * s, np.int64)
    change = fast_through(after, start, far)
    top = after[-1] if after else operator
    d = change.everywhere(top.out.shape[:-1]).reshape(-1, m * s, b)
    moved = loss.fast(np.ascontiguousarray(d), far).reshape(m, s, b)
    return (moved[:, 0] - moved[:, 1]) / (2 * h), far.reshape(m, s).any(axis=1)


def _one_hot(field: Field, entries: IntArray) -> Callable[[float], FloatArray]:
    """Return step -> differences in which change k moves entry k in all samples."""
    features, samples = field.central.shape[:-1], field.central.shape[-1]

    def move(h: float) -> FloatArray:
        d = np.zeros((int(np.prod(features)), len(entries), samples))
        d[entries, np.arange(len(entries))] = h
        return d.reshape(*features, len(entries), samples)

    return move


def _settled(field: Field, loss: LossAt, h: float, move: Callable[[float], FloatArray]) -> tuple[Slopes, Bits]:
    """Measure at a tiny step by exact formulas; return the bits of the first step's kinks as well."""
    first = one_sided(field.after, loss, move, h)
    tiny = one_sided(field.after, loss, move, TINY)
    return tiny, first.bits & CROSSED | np.where(tiny.bits > 0, AT_KINK, np.uint8(0))


def finish(field: Field, loss: LossAt, h: float) -> None:
    """Measure again, by the exact formulas and with a tiny step, the entries that went too far."""
    entries = np.flatnonzero(field.far)
    if not len(entries):
        return
    field.split()
    samples = field.central.shape[-1]
    flat = {name: getattr(field, name).reshape(-1, samples) for name in ("central", "right", "left", "bits")}
    for part in chunks(entries, 4 * samples * widest(field.after, int(np.prod(field.far.shape)))):
        slopes, bits = _settled(field, loss, h, _one_hot(field, part))
        flat["central"][part] = (slopes.right + slopes.left) / 2
        flat["right"][part], flat["left"][part], flat["bits"][part] = slopes.right, slopes.left, bits


def _pairs(field: Field, loss: LossAt, h: float, entries: IntArray) -> None:
    """Difference entries whose samples act on each other: one (entry, sample) at a time, over the whole batch."""
    features, samples = field.central.shape[:-1], field.central.shape[-1]
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
            slopes, both = _settled(field, loss, h, move)
            bits = np.bitwise_or.reduce(both, axis=1)
        field.central.reshape(-1)[part] = (slopes.right + slopes.left).sum(axis=1) / 2
        field.bits.reshape(-1)[part] = bits
