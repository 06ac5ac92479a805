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
