"""Perturb one coordinate in place, evaluate, restore: the loop around a compiled loss.

Compilation policy: a kernel is specialised by Numba for the type of the loss it is handed, and every compiled loss is
a type of its own. So each loss is compiled into the loop (inlined where LLVM sees fit) once per process, on first use,
and all threads share the code. Kernels are never cached on disk: Numba would key the file by the kernel's source,
not by the user's, and a changed loss could be given the machine code of the old one.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from fastcheck.arrays import FloatArray, IntArray

__all__ = ["on_grid"]


@njit(nogil=True, cache=False)
def on_grid(
    loss: Any,
    point: Any,
    work: FloatArray,
    probes: tuple[IntArray, FloatArray],
    offsets: FloatArray,
    out: FloatArray,
    cursor: IntArray,
    args: Any,
) -> None:
    """Write ``J(theta + offsets[k] * steps[j] * e_i)`` to ``out[j, k]``, from slot ``cursor[0]`` on.

    Parameters
    ----------
    loss : compiled function
        ``loss(point, *args) -> float``.
    point : array or tuple of arrays
        What the loss is given: `work`, or views into it.
    work : float64, shape (P,)
        theta; one coordinate at a time is changed, and restored bit by bit.
    probes : (int64, float64), shapes (m,)
        Coordinates and steps.
    offsets : float64, shape (k,)
        The grid, in units of the step.
    out : float64, shape (m, k)
        The losses.
    cursor : int64, shape (1,)
        The slot being evaluated, counted row by row; when the loss raises, it tells where.
    args : tuple
        Further arguments of the loss.
    """
    coordinates, steps = probes
    wide = len(offsets)
    first = cursor[0]
    for row in range(first // wide, len(coordinates)):
        i = coordinates[row]
        saved = work[i]
        for k in range(first % wide if row == first // wide else 0, wide):
            cursor[0] = row * wide + k
            work[i] = saved + offsets[k] * steps[row]
            out[row, k] = loss(point, *args)
        work[i] = saved
    cursor[0] = len(coordinates) * wide
