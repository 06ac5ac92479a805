"""Random cotangents and tangents that no error can hide behind: signs at random, magnitudes away from zero.

An entry is s (1/2 + U), s = +1 or -1 and U uniform on [0, 1]. It is at least 1/2 in magnitude, so an error confined to
one output is seen at half its size or more, with certainty. Errors of several outputs may cancel in one inner product:
its density is at most 1/(2|E|) where E is the largest of them, so it falls below delta |E| with probability delta at
most, and below it in all of k independent ones with probability delta^k.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from fastcheck.arrays import FloatArray
from fastcheck.measure.directions import gaussian

__all__ = ["COTANGENT", "TANGENT", "bounded", "unit", "visible"]

COTANGENT, TANGENT = 1 << 32, 1 << 33  # keys of the generator that no block of a screen has


def bounded(seed: int, key: int, number: int, size: int) -> FloatArray:
    """Return a random vector with entries in [-1 1/2, -1/2] and [1/2, 1 1/2].

    Parameters
    ----------
    seed : int
        Of the run.
    key : int
        What it is drawn for: `COTANGENT`, or `TANGENT` and the number of the block.
    number : int
        Number of the vector.
    size : int

    Returns
    -------
    float64, shape (size,)
    """
    drawn = gaussian(seed, key, number, 0, size)
    return np.asarray(np.copysign(0.5 + special.erf(np.abs(drawn) / np.sqrt(2)), drawn))  # |N| by its own quantile


def unit(place: int, size: int) -> FloatArray:
    """Return the unit vector of a place, shape (size,)."""
    vector = np.zeros(size)
    vector[place] = 1.0
    return vector


def visible(count: int, confidence: float) -> float:
    """Return the share of an error that at least one of so many bounded vectors shows, at a confidence."""
    return min(0.5, float((1 - confidence) ** (1 / count)))
