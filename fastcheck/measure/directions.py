"""Gaussian directions that nobody has to keep: each part can be drawn again, by anyone, in any order.

The generator is counter-based (Philox; Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
2011): its key is the run's seed and the number of the block, its counter the probe and the chunk of coordinates. So
a run stores no matrix of directions, every worker draws the same one, and half a direction is the same numbers as in
the whole of it.
"""

from __future__ import annotations

import numpy as np

from fastcheck.arrays import FloatArray

__all__ = ["CHUNK", "gaussian"]

CHUNK = 1 << 16  # coordinates that share a counter; part of the definition of a direction
_WORD = 1 << 64


def gaussian(seed: int, block: int, probe: int, start: int, stop: int) -> FloatArray:
    """Return coordinates ``start:stop`` of one standard normal direction over a block.

    Parameters
    ----------
    seed : int
        Of the run.
    block : int
        Number of the block.
    probe : int
        Number of the direction.
    start, stop : int
        Places in the block, from 0.

    Returns
    -------
    float64, shape (stop - start,)
    """
    out = np.empty(max(0, stop - start))
    key = np.array([seed % _WORD, block], dtype=np.uint64)
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        first = chunk * CHUNK
        low, high = max(start, first), min(stop, first + CHUNK)
        counter = np.array([0, 0, probe, chunk], dtype=np.uint64)
        drawn = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(high - first)
        out[low - start : high - start] = drawn[low - first :]
    return out
