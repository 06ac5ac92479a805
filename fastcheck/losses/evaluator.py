"""What every kind of loss offers to the plans: J at many points around one theta."""

from __future__ import annotations

from typing import Protocol

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.parameters import Parameters

__all__ = ["Evaluator"]


class Evaluator(Protocol):
    """J around a fixed theta.

    A value is NaN where the loss raised or returned no finite number; `failure` then tells why.

    Attributes
    ----------
    layout : Parameters
        How the tree becomes theta.
    theta : float64, shape (P,)
        The base point; read-only and never changed.
    evaluations : int
        Losses evaluated so far.
    failure : str or None
        What the first failed evaluation said, and at which coordinate.
    """

    layout: Parameters
    theta: FloatArray
    evaluations: int
    failure: str | None

    def base(self) -> float:
        """Return J(theta)."""
        ...

    def represent(self, coordinates: IntArray, values: FloatArray) -> FloatArray:
        """Return what the loss really sees when coordinate i is set to a value: rounded to the block's own dtype."""
        ...

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """Return ``J(theta + offsets[k] * steps[j] * e_i)`` for i = coordinates[j], shape (m, len(offsets))."""
        ...

    def along(self, start: int, direction: FloatArray, steps: FloatArray) -> FloatArray:
        """Return ``J(theta + t * v)`` for every t of steps, where v is `direction` at ``[start:start+len]``, else 0.

        Parameters
        ----------
        start : int
            First coordinate of the range that moves.
        direction : float64, shape (n,)
            The range's part of v.
        steps : float64, shape (k,)
        """
        ...
