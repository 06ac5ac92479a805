"""The array types that everything speaks, and the memory behind them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["PIECE", "FloatArray", "IntArray", "equal", "keep_freed_memory", "pieces"]

PIECE = 1 << 13  # entries of a long vector that are worked on at a time: they stay in the cache, and cost no memory

KEPT = 31 << 20  # bytes: just below the most that glibc lets a freed block raise its thresholds to

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]


def pieces(start: int, stop: int) -> Iterator[slice]:
    """Yield the places of a long vector that are worked on at a time."""
    return (slice(low, min(low + PIECE, stop)) for low in range(start, stop, PIECE))


def equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Say whether two arrays are equal, without a vector of answers."""
    if a.shape != b.shape or a.size <= PIECE or len(a) < 2:
        return np.array_equal(a, b)
    middle = len(a) // 2
    return equal(a[:middle], b[:middle]) and equal(a[middle:], b[middle:])


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory that the temporaries of an evaluation leave for the next one; elsewhere do nothing.

    A young process gives them back to the system, and faults for each of their pages at every evaluation: two worker
    processes then got done what one does. Freeing one large block raises the sizes up to which memory is kept (the
    dynamic threshold of mallopt(3)), for as long as the process lives. It is not touched, and costs microseconds. Where
    MALLOC_TRIM_THRESHOLD_ or its like is set, as Dask does for its workers, that holds.
    """
    np.empty(KEPT, np.uint8)
