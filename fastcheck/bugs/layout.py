"""Right numbers in wrong places: transposes, memory orders, swapped blocks, moved axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.bugs.mutation import Mutation, Planted, Rule, Subject
from fastcheck.parameters import Block

__all__ = ["LAYOUT"]

Move = Callable[[NDArray[Any], int, np.random.Generator], tuple[NDArray[Any], dict[str, Any]]]


def _transpose(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng, lambda b: len(b.shape) >= 2 and b.shape[-1] == b.shape[-2] > 1)
    return None if block is None else Planted(subject.changed(block, block.view(subject.g).swapaxes(-1, -2)))


def _fortran_order(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Flatten in C order and rebuild in Fortran order: on a square matrix it would be the transpose."""
    block = subject.pick(rng, lambda b: len(b.shape) >= 2 and b.shape[-1] != b.shape[-2] and min(b.shape) > 1)
    return (
        None
        if block is None
        else Planted(subject.changed(block, block.view(subject.g).ravel().reshape(block.shape, order="F")))
    )


def _swapped(subject: Subject, rng: np.random.Generator) -> Planted | None:
    blocks = subject.blocks()
    pairs = [(a, b) for i, a in enumerate(blocks) for b in blocks[i + 1 :] if a.shape == b.shape]
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    wrong = subject.changed(a, b.view(subject.g))
    b.view(wrong)[...] = a.view(subject.g)
    return Planted(wrong, {"blocks": (a.name, b.name)})


def _moved(move: Move, at_least: int) -> Rule:
    """Return the rule that moves the entries of one block along one axis with `at_least` entries."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: bool(_tellable(subject, b, at_least)))
        if block is None:
            return None
        axis = int(rng.choice(_tellable(subject, block, at_least)))
        value, facts = move(block.view(subject.g), axis, rng)
        return Planted(subject.changed(block, value), {"axis": axis, **facts})

    return rule


def _tellable(subject: Subject, block: Block, at_least: int) -> list[int]:
    """Return the axes with so many slices, three of them different: of fewer, a shift may be a reversal too."""
    g = block.view(subject.g)
    return [
        axis
        for axis, n in enumerate(block.shape)
        if n >= at_least and len(np.unique(np.moveaxis(g, axis, 0).reshape(n, -1), axis=0)) >= 3
    ]


def _shift(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    shift = int(rng.choice([-1, 1]))
    return np.roll(g, shift, axis), {"shift": shift}


def _reverse(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    return np.flip(g, axis), {}


def _permute(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    n = g.shape[axis]
    while True:  # neither a shift nor a reversal (nor both), which have names of their own
        order = rng.permutation(n)
        steps = np.unique(np.diff(order) % n)
        if len(steps) > 1:
            return np.take(g, order, axis), {"order": tuple(order.tolist())}


LAYOUT = (
    Mutation("transpose", "one square block transposed", _transpose, ("transpose",)),
    Mutation("fortran_order", "one block reshaped in the other memory order", _fortran_order, ("order", "transpose")),
    Mutation("swapped", "two blocks of one shape taken for each other", _swapped, ("swapped",)),
    Mutation("shifted", "one axis shifted by one (off by one, cyclic)", _moved(_shift, 3), ("shifted", "permuted")),
    Mutation("reversed", "one axis in reverse order", _moved(_reverse, 3), ("reversed", "permuted")),
    Mutation("permuted", "one axis in another order", _moved(_permute, 4), ("permuted",)),
)
