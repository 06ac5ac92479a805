"""The array types that everything speaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["PIECE", "FloatArray", "IntArray", "equal", "pieces"]

PIECE = 1 << 13  # entries of a long vector that are worked on at a time: they stay in the cache, and cost no memory

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
