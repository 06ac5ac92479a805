"""What every kind of loss offers to the plans: J at many points around one theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, Self, runtime_checkable

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.estimates import Measured
from fastcheck.parameters import Parameters

__all__ = ["Evaluator", "MeasuresItself", "Shardable", "own_loss"]


@runtime_checkable
class MeasuresItself(Protocol):
    """A loss that knows its own structure and measures its derivatives by it, as a bound `Network` does.

    Attributes
    ----------
    like : callable or None
        The user's own loss, which it was shown to be.
    args : tuple
        Extra positional arguments of that.
    step : float
        The first step that it takes by itself, in its own units.
    """

    like: Callable[..., float] | None
    args: tuple[Any, ...]
    step: float

    def measure(
        self,
        theta: FloatArray,
        layout: Parameters,
        coordinates: IntArray | None = None,
        *,
        step: float | None = None,
        workers: int = 1,
    ) -> Measured:
        """Return the measured derivatives of the coordinates, or of all of them, with a first step of the user's."""
        ...


def own_loss(loss: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the loss that the user wrote, with its data: what a network stands for, where it was shown to be that."""
    if isinstance(loss, MeasuresItself) and loss.like is not None:
        return loss.like, loss.args
    return loss, args


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

    @property
    def has_args(self) -> bool:
        """Whether the loss takes more than its parameters."""
        ...

    @property
    def untouched(self) -> bool:
        """Whether the loss left its parameters as they were given; if not, they are put right."""
        ...

    def tree_of(self, theta: FloatArray) -> Any:
        """Return the tree that a gradient function is given for a theta."""
        ...

    def call(self) -> Any:
        """Call the loss at theta and return what it returned; what it raises is not caught."""
        ...

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


@runtime_checkable
class Shardable(Evaluator, Protocol):
    """An evaluator whose grids several workers may share.

    Attributes
    ----------
    home : {"threads", "processes"}
        Where its workers run best: threads when an evaluation does not hold the interpreter's lock.
    """

    home: Literal["threads", "processes"]

    def twin(self) -> Self:
        """Return an evaluator of the same loss around the same theta with private working memory."""
        ...
