"""A problem that also knows what gradient bugs are made of: its batch, its regulariser, its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fastcheck.arrays import IntArray
from fastcheck.problem import Problem

__all__ = ["Net", "rows", "with_bugs"]


@dataclass(frozen=True)
class Net(Problem):
    """A `Problem` with a hand-written backward pass, and the facts that bugs are made of.

    Attributes
    ----------
    batch : int
        Number m of samples over which the loss is a mean; 0 where it is not a mean over samples.
    classes : int
        Number of classes of a softmax cross-entropy, else 0.
    decay : mapping
        Block name -> lambda of ``lambda / 2 * sum(W**2)``, a part of the loss that is not averaged over the batch.
    lasso : mapping
        Block name -> lambda of ``lambda * sum(|W|)``.
    biases : tuple of str
        The blocks that are biases, one entry per unit.
    take : callable or None
        ``take(args, indices)`` returns the args of a smaller batch; None where samples act on one another.
    bugs : mapping
        Kind of bug -> a backward pass in which that bug was really made, called like ``gradient``.
    """

    batch: int = 0
    classes: int = 0
    decay: Mapping[str, float] = field(default_factory=dict)
    lasso: Mapping[str, float] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    take: Callable[[tuple[Any, ...], IntArray], tuple[Any, ...]] | None = field(default=None, repr=False)
    bugs: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False)


def rows(args: tuple[Any, ...], indices: IntArray) -> tuple[Any, ...]:
    """Return the samples `indices` of args whose arrays have one sample per row; numbers are kept, tuples descended."""

    def pick(arg: Any) -> Any:
        if isinstance(arg, tuple):
            return rows(arg, indices)
        return arg[indices] if isinstance(arg, np.ndarray) else arg

    return tuple(pick(arg) for arg in args)


def with_bugs(gradient: Callable[..., Any], *kinds: str) -> dict[str, Callable[..., Any]]:
    """Return kind -> the backward pass `gradient` with its keyword ``bug`` set to that kind."""
    return {kind: partial(gradient, bug=kind) for kind in kinds}
