"""Right numbers in wrong places: transposes, memory orders, reversed, shifted and permuted axes, exchanged blocks.

What was moved may be the data term alone, the regulariser added afterwards: with P the move, n = P g + lambda
(theta - P theta), lambda fitted where the plain move leaves something.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.diagnosis.evidence import BlockEvidence, Evidence
from fastcheck.diagnosis.hypothesis import Explained, Hypothesis, Number, Rule, number_cost
from fastcheck.diagnosis.wording import advice, named, numbers, only
from fastcheck.findings import Finding, Kind

__all__ = ["ORDER"]

Move = Callable[[FloatArray], Any]

SHIFTING = 2e7  # entries moved in trying all shifts of a block; of larger ones only the shifts by 1 to 3 are tried
ASSIGNED = 512  # slices among which equal ones are told apart
MATCHED = 4096  # slices along an axis that are matched with one another
AXES = 4  # of a block whose axes are tried in every order


def _moves(shape: tuple[int, ...]) -> list[tuple[Kind, str, Move]]:
    """Return ``(kind, words, move)`` for a shape; a move maps an array of that shape to another of it."""
    found: list[tuple[Kind, str, Move]] = []
    wide = [axis for axis, n in enumerate(shape) if n > 1]
    for i, j in itertools.combinations(wide, 2):
        if shape[i] == shape[j]:
            words = "transposed" if len(shape) == 2 else f"with its axes {i} and {j} exchanged"
            found.append((Kind.TRANSPOSE, words, partial(np.swapaxes, axis1=i, axis2=j)))
    if 2 <= len(wide) <= AXES and len(shape) <= AXES:
        for axes in itertools.permutations(range(len(shape))):
            if axes != tuple(range(len(shape))):
                found += _reshapes(shape, axes)
    for i, j in itertools.combinations(wide, 2):
        words = f"flipped along both axes {i} and {j}"
        found.append((Kind.KERNEL_FLIPPED, words, partial(np.flip, axis=(i, j))))
    for axis in wide:
        words = f"reversed along axis {axis}"
        found.append((Kind.REVERSED, words, partial(np.flip, axis=axis)))
    size = math.prod(shape)
    for axis in wide:
        n = shape[axis]
        every = size * n <= SHIFTING
        shifts = range(1, n) if every else sorted({s % n for s in (1, 2, 3, -1, -2, -3)} - {0})
        for shift in shifts:
            by = shift if shift <= n // 2 else shift - n
            words = f"shifted by {-by} along axis {axis}"
            found.append((Kind.SHIFTED, words, partial(np.roll, shift=shift, axis=axis)))
    return found


def _reshapes(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[Kind, str, Move]]:
    """Return the two ways of getting an order of axes wrong by a reshape where a transpose belongs."""
    turned = tuple(shape[axis] for axis in axes)
    back = tuple(np.argsort(axes).tolist())
    words = "reshaped where a transpose belongs"
    if axes == tuple(reversed(range(len(shape)))):
        words += " (C order taken for Fortran order)"
    return [
        (Kind.ORDER, words, lambda a: np.ascontiguousarray(a).reshape(turned).transpose(back)),
        (Kind.ORDER, words, lambda a: np.ascontiguousarray(a.transpose(axes)).reshape(shape)),
    ]


def _moved(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    moves = _moves(block.block.shape)
    cost = math.log10(1 + len(moves))
    g, theta = block.array(block.g), block.array(block.theta)
    for kind, words, move in moves:
        prediction = block.view.of(block.vector(move(g)))
        moved_theta = partial(_entries, block, move, theta)
        yield from _with_decay(block, prediction, moved_theta, kind, cost, {"words": words}, evidence)


def _entries(block: BlockEvidence, move: Move, array: FloatArray) -> FloatArray:
    return block.vector(move(array))


def _exchanged(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    others = [o for o in evidence.blocks if o.name != block.name and o.block.shape == block.block.shape]
    for other in others:
        prediction = block.view.of(block.vector(other.array(other.g)))
        yield from _with_decay(
            block,
            prediction,
            partial(block.vector, other.array(other.theta)),
            Kind.SWAPPED,
            math.log10(1 + len(others)),
            {"other": other.name},
            evidence,
        )


def _with_decay(
    block: BlockEvidence,
    prediction: FloatArray,
    moved_theta: Callable[[], FloatArray],
    kind: Kind,
    cost: float,
    facts: dict[str, object],
    evidence: Evidence,
) -> Iterator[Hypothesis]:
    """Yield the plain move and, where it leaves something, the move of the data term alone."""
    left = block.n - prediction
    yield Hypothesis(kind, left, cost, facts=facts)
    if np.all(np.abs(left) <= block.tolerance):
        return
    column = block.view.of(block.theta - moved_theta())
    weighted = column / block.tolerance
    squared = float(weighted @ weighted)
    if squared > 0 and len(left) > 1:
        rate = Number(float(weighted @ (left / block.tolerance)) / squared, math.sqrt(len(left) / squared))
        cost += number_cost(rate, 0.0, evidence.facts.scalars)
        yield Hypothesis(kind, left - rate.value * column, cost, facts={**facts, "lambda": rate})


def _permuted(block: BlockEvidence, evidence: Evidence) -> Iterator[Hypothesis]:
    """Yield, for each axis, the order of slices that fits best."""
    if not block.whole or not np.isfinite(block.n).all():
        return
    g, n = block.array(block.g), block.array(block.n)
    for axis, length in enumerate(block.block.shape):
        if not 2 < length <= MATCHED:
            continue
        given, measured = (np.moveaxis(a, axis, 0).reshape(length, -1) for a in (g, n))
        # |n_i - g_j|^2 less what does not depend on j
        apart = (given * given).sum(axis=1)[None, :] - 2 * measured @ given.T
        source = np.argmin(apart, axis=1)
        if len(np.unique(source)) < length:  # slices that are equal: give each its own
            if length > ASSIGNED:
                continue
            from scipy.optimize import linear_sum_assignment  # takes longer to load than most checks to run

            source = linear_sum_assignment(apart)[1]
        if np.array_equal(source, np.arange(length)):
            continue
        prediction = block.view.of(block.vector(np.take(g, source, axis)))
        cost = math.lgamma(length + 1) / math.log(10) + 1
        words = f"permuted along axis {axis}"
        yield Hypothesis(Kind.PERMUTED, block.n - prediction, cost, facts={"words": words, "order": source.tolist()})


def _tell_moved(group: Sequence[Explained], evidence: Evidence) -> Finding:
    first = group[0]
    names = named(group)
    words = str(first.hypothesis.facts["words"])
    rate = first.hypothesis.facts.get("lambda")
    spared = f" (all but an L2 term with lambda = {rate.value:.4g})" if isinstance(rate, Number) else ""
    verb = "are the measured ones" if len(group) > 1 else "is the measured one"
    remedy = advice(first.hypothesis.kind)
    return Finding(
        first.hypothesis.kind,
        only(group),
        f"gradient{'s' if len(group) > 1 else ''} of {names} {verb} {words}{spared}: {remedy}",
        numbers(
            group,
            short=words,
            **({"lambda": rate.value} if isinstance(rate, Number) else {}),
            **({"order": first.hypothesis.facts["order"]} if "order" in first.hypothesis.facts else {}),
        ),
    )


def _tell_exchanged(group: Sequence[Explained], evidence: Evidence) -> Finding:
    pairs: list[tuple[str, str]] = []
    for explained in group:
        pair = (explained.name, str(explained.hypothesis.facts["other"]))
        if pair[::-1] not in pairs:
            pairs.append(pair)
    said = "; ".join(f"gradient of {a} is the measured one of {b}" for a, b in pairs)
    mutual = len(group) > len(pairs)
    return Finding(
        Kind.SWAPPED,
        pairs[0][0],
        f"{said}{', and the other way round' if mutual else ''}: {advice(Kind.SWAPPED)}",
        numbers(group, pairs=pairs, short="exchanged" if mutual else f"has the gradient of {pairs[0][1]}"),
    )


ORDER = (
    Rule(_moved, _tell_moved, every_row=False),
    Rule(_exchanged, _tell_exchanged, every_row=False),
    Rule(_permuted, _tell_moved),
)
