"""What can be guessed about the data of a loss: the batch size, the number of classes, the loose numbers in its args.

Only to read a fitted number ("3.0000: missing 1/m?"); no finding rests on a guess, and a reading ends in a question
mark.
"""

from __future__ import annotations

import functools
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.losses import own_loss
from fastcheck.plain import written

__all__ = ["Facts", "facts_of"]

DEEP = 4  # containers inside containers that are looked into
MANY = 64  # arrays looked at


@dataclass(frozen=True)
class Facts:
    """Numbers that a wrong factor or a lambda may have come from.

    Attributes
    ----------
    batch : int
        Length of the axis that the data arrays share; 0 where it is not known.
    classes : int
        One more than the largest of integer labels from 0 up; 0 where there are none.
    sizes : tuple of int
        Lengths of all axes of the data, rising.
    scalars : tuple of float
        Numbers among the arguments.
    """

    batch: int = 0
    classes: int = 0
    sizes: tuple[int, ...] = ()
    scalars: tuple[float, ...] = ()


def facts_of(loss: Callable[..., Any], args: tuple[Any, ...], parameters: Iterable[tuple[int, ...]] = ()) -> Facts:
    """Look at the data a loss is called with; where there are no args, at what the function carries itself.

    Parameters
    ----------
    loss : callable
        The loss; a partial, a method, a closure or an object is looked into where `args` holds no array. A network that
        was compared with the user's own loss stands for that.
    args : tuple
        Extra positional arguments of the loss.
    parameters : iterable of tuple of int
        Shapes of the parameters: their axes are no batch, unless nothing else is.
    """
    loss, args = own_loss(written(loss), args)
    found = list(_leaves(args, DEEP))
    if not any(_shape(leaf) for leaf in found):
        found += list(_leaves(tuple(_carried(loss)), DEEP))
    arrays = [leaf for leaf in found if _shape(leaf)][:MANY]
    scalars = tuple(float(leaf) for leaf in found if isinstance(leaf, numbers.Real) and not isinstance(leaf, bool))
    sizes = sorted({n for leaf in arrays for n in _shape(leaf) if n > 1})
    return Facts(_batch(arrays, set().union(*map(set, parameters))), _classes(arrays), tuple(sizes), scalars)


def _batch(arrays: list[Any], widths: set[int]) -> int:
    """Return the outer axis length that most arrays share; a tie goes to leading axes that are no layer's width."""
    votes: Counter[int] = Counter()
    for leaf in arrays:
        shape = _shape(leaf)
        votes.update({shape[0], shape[-1]})
    first = {_shape(leaf)[0] for leaf in arrays}
    if not votes:
        return 0
    m = max(votes, key=lambda n: (n > 1, votes[n], n not in widths, n in first, n))
    return m if m > 1 else 0


def _classes(arrays: list[Any]) -> int:
    for leaf in arrays:
        if isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.integer) and leaf.ndim == 1 and leaf.size:
            low, high = int(leaf.min()), int(leaf.max())
            if low >= 0 and 0 < high < leaf.size:
                return high + 1
    return 0


def _shape(leaf: Any) -> tuple[int, ...]:
    shape = getattr(leaf, "shape", ())
    return shape if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape) else ()


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        if depth and len(value) <= MANY:
            for item in value:
                yield from _leaves(item, depth - 1)
    else:
        yield value


def _carried(loss: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function brings along: a partial's arguments, a closure's cells, an object's attributes."""
    if isinstance(loss, functools.partial):
        yield from loss.args
        yield from loss.keywords.values()
        yield from _carried(loss.func)
        return
    yield from getattr(getattr(loss, "__self__", loss), "__dict__", {}).values()
    for cell in getattr(loss, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue
    code, scope = getattr(loss, "__code__", None), getattr(loss, "__globals__", {})
    if code is not None:
        yield from (scope[name] for name in code.co_names if isinstance(scope.get(name), np.ndarray))
