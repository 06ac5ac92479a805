"""Slow obvious twins: what the tests believe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.parameters import Parameters

__all__ = ["central_differences", "textbook_ratio"]


def central_differences(
    loss: Callable[..., float], params: Any, args: tuple[Any, ...] = (), step: float = 1e-5
) -> NDArray[np.float64]:
    """Return (J(theta + h e_i) - J(theta - h e_i)) / 2h for every coordinate, from a fresh copy of theta each time."""
    layout = Parameters.of(params)
    numerical = np.empty(layout.size)
    for i in range(layout.size):
        plus, minus = layout.flatten(params), layout.flatten(params)
        plus[i] += step
        minus[i] -= step
        difference = loss(layout.unflatten(plus), *args) - loss(layout.unflatten(minus), *args)
        numerical[i] = difference / (2 * step)
    return numerical


def textbook_ratio(analytic: NDArray[np.float64], numerical: NDArray[np.float64]) -> float:
    """Return ||g - n|| / (||g|| + ||n||)."""
    apart = np.linalg.norm(analytic - numerical)
    return float(apart / (np.linalg.norm(analytic) + np.linalg.norm(numerical)))


def grade_in_words(error: float, tolerance: float = 1e-7, kinks: bool = False) -> str:
    """Return the textbook's grade of a relative error, as its sentences have it."""
    if error <= tolerance:
        return "correct"
    if error <= 1e-4:
        return "acceptable" if kinks else "suspicious"
    return "suspicious" if error <= 1e-2 else "wrong"


def relative_errors(g: list[float], n: list[float], u: list[float]) -> list[float]:
    """Return max(0, |g - n| - u) / (|g| + |n|), one coordinate after another, in long double."""
    out = []
    for a, b, c in zip(g, n, u, strict=True):
        a, b, c = np.longdouble(a), np.longdouble(b), np.longdouble(c)
        clear = abs(a - b) - c
        out.append(float(clear / (abs(a) + abs(b))) if clear > 0 else 0.0)
    return out


def moving_difference_table(values: list[float]) -> list[list[float]]:
    """Return the columns of the difference table, each entry from the two beside it, in long double."""
    columns = [[np.longdouble(v) for v in values]]
    while len(columns[-1]) > 1:
        last = columns[-1]
        columns.append([last[i + 1] - last[i] for i in range(len(last) - 1)])
    return [[float(v) for v in column] for column in columns]
