"""What can be guessed about the data of a loss: the batch size, the number of classes, the loose numbers in its args.

Only to read a fitted number ("3.0000: missing 1/m?"); no finding rests on a guess, and a reading ends in a question
mark.
"""

from __future__ import annotations

import functools
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.losses import own_loss
from fastcheck.parallel.digest import contents
from fastcheck.plain import written

__all__ = ["DataFacts", "arrays_in", "class_axis", "facts_of", "is_labels", "is_mask", "scalars_in"]

DEEP = 4  # containers inside containers that are looked into
MANY = 64  # arrays looked at
SMALLEST = 8  # entries of a mask
OFF = 0.15  # distance of the share that a mask keeps from its rate, in small samples


@dataclass(frozen=True)
class DataFacts:
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
    counts : tuple of float
        How many samples each class has, by labels or a one-hot matrix; empty where there are none.
    scales : tuple of float
        What a mask of dropout among the arguments multiplies by, or the share it keeps.
    draws : bool
        Whether the loss draws at random.
    """

    batch: int = 0
    classes: int = 0
    sizes: tuple[int, ...] = ()
    scalars: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    draws: bool = False


def facts_of(loss: Callable[..., Any], args: tuple[Any, ...], parameters: Iterable[tuple[int, ...]] = ()) -> DataFacts:
    """Look at the data a loss is called with; where `args` holds no array, at what the function carries itself.

    That is a partial, a method, a closure or an object. A network that was compared with the user's own loss stands for
    it. `parameters` are the shapes of the parameters: their axes are no batch, unless nothing else is.
    """
    loss, args = own_loss(written(loss), args)
    found = list(_leaves(args, DEEP))
    if not any(_shape(leaf) for leaf in found):
        found += list(_leaves(tuple(_carried(loss)), DEEP))
    arrays = [leaf for leaf in found if _shape(leaf)][:MANY]
    scalars = tuple(float(leaf) for leaf in found if isinstance(leaf, numbers.Real) and not isinstance(leaf, bool))
    sizes = sorted({n for leaf in arrays for n in _shape(leaf) if n > 1})
    batch = _batch(arrays, set().union(*map(set, parameters)))
    found = [leaf for leaf in arrays if isinstance(leaf, np.ndarray)]
    return DataFacts(batch, _classes(arrays), tuple(sizes), scalars, _counts(found, batch), _scales(found, scalars))


def arrays_in(data: tuple[Any, ...]) -> list[NDArray[Any]]:
    """Return the numpy arrays among some arguments."""
    return [leaf for leaf in _leaves(data, DEEP) if isinstance(leaf, np.ndarray)][:MANY]


def scalars_in(data: tuple[Any, ...]) -> list[float]:
    """Return the Python floats among some arguments."""
    return [leaf for leaf in _leaves(data, DEEP) if isinstance(leaf, float)]


def is_labels(array: NDArray[Any]) -> bool:
    """Say whether an array holds class numbers from 0 up, one for each sample."""
    if array.size < 2 or array.size != max(array.shape) or array.dtype.kind not in "iuf":
        return False
    return bool(np.all(array == np.rint(array)) and array.min() >= 0 and 0 < array.max() < array.size)


def class_axis(array: NDArray[Any]) -> int | None:
    """Return the axis of the classes of a one-hot matrix; None for other arrays."""
    if array.ndim != 2 or min(array.shape) < 2 or not np.all((array == 0) | (array == 1)):
        return None
    return next((axis for axis in (1, 0) if np.all(array.sum(axis=axis) == 1)), None)


def is_mask(array: NDArray[Any]) -> bool:
    """Say whether an array holds zeros and one positive number, and is no one-hot matrix."""
    if array.size < SMALLEST or array.dtype.kind not in "biuf" or class_axis(array) is not None:
        return False
    kept = array != 0
    return bool(0 < kept.mean() < 1 and array.max() > 0 and np.all(array[kept] == array.max()))


def _counts(arrays: Sequence[NDArray[Any]], batch: int) -> tuple[float, ...]:
    for array in arrays:
        axis = class_axis(array)
        if axis is not None and array.shape[1 - axis] == batch:
            return tuple(array.sum(axis=1 - axis).astype(float).tolist())
        if is_labels(array) and array.size == batch:
            return tuple(np.bincount(array.ravel().astype(int)).astype(float).tolist())
    return ()


def _scales(arrays: Sequence[NDArray[Any]], scalars: Sequence[float]) -> tuple[float, ...]:
    found = []
    for mask in filter(is_mask, arrays):
        found += [float(mask.max())] if mask.max() != 1 else []
        found += [rate for rate in scalars if 0 < rate < 1 and abs(rate - float((mask != 0).mean())) < OFF]
    return tuple(dict.fromkeys(found))


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
        yield from contents(cell)
    code, scope = getattr(loss, "__code__", None), getattr(loss, "__globals__", {})
    if code is not None:
        yield from (scope[name] for name in code.co_names if isinstance(scope.get(name), np.ndarray))
