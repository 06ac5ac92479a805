"""Random directions that nobody has to keep: each part can be drawn again, by anyone, in any order.

Each chunk of coordinates has a generator of its own, whose seed is the run's with the numbers of the block, the probe
and the chunk (numpy's SeedSequence; M. E. O'Neill, "Developing a seed_seq alternative", 2015). So a run stores no
matrix of directions, every worker draws the same one, and half a direction is the same numbers as in the whole of it.
The generator is SFC64 (C. Doty-Humphrey, PractRand): drawing is most of what a screen of a large net adds to its loss.

Those of a screen are Gaussian. Cotangents, and the tangents that linearity is tried with, are vectors that no error can
hide behind: signs at random, magnitudes away from zero. An entry is s (1/2 + U), s = +1 or -1 and U uniform on [0, 1].
It is at least 1/2 in magnitude, so an error confined to one output is seen at half its size or more, with certainty.
Errors of several outputs may cancel in one inner product: its density is at most 1/(2|E|) where E is the largest of
them, so it falls below delta |E| with probability delta at most, and below it in all of k independent ones with
probability delta^k.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from fastcheck.arrays import FloatArray

__all__ = ["CHUNK", "COTANGENT", "TANGENT", "bounded", "gaussian", "unit", "visible"]

CHUNK = 1 << 16  # coordinates that share a generator; part of the definition of a direction
_WORD = 1 << 64


def gaussian(seed: int, block: int, probe: int, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
    """Return coordinates ``start:stop`` of one standard normal direction over a block; block and probe are numbers.

    They are written to `out`, shape (stop - start,), where it is given.
    """
    out = np.empty(max(0, stop - start)) if out is None else out
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        first = chunk * CHUNK
        low, high = max(start, first), min(stop, first + CHUNK)
        own = np.random.SeedSequence(seed % _WORD, spawn_key=(block, probe, chunk))
        generator = np.random.Generator(np.random.SFC64(own))
        if low == first:
            generator.standard_normal(out=out[low - start : high - start])
        else:
            out[low - start : high - start] = generator.standard_normal(high - first)[low - first :]
    return out


COTANGENT, TANGENT = 1 << 32, 1 << 33  # keys of the generator that no block of a screen has


def bounded(seed: int, key: int, number: int, size: int) -> FloatArray:
    """Return a random vector with entries in [-1 1/2, -1/2] and [1/2, 1 1/2].

    `key` is what it is drawn for, `COTANGENT`, or `TANGENT` and the number of the block; `number` is its own.
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
