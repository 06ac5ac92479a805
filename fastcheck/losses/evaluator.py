"""What every kind of loss offers to the strategies: J at many points around one theta; and how theta is perturbed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, Protocol, Self, TypeGuard, runtime_checkable

import numpy as np

from fastcheck.arithmetic import theirs
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import LossError, line_of, said
from fastcheck.estimates import Measured
from fastcheck.parameters import Parameters

__all__ = [
    "Direction",
    "Evaluator",
    "MeasuresItself",
    "PerturbedLoss",
    "Shardable",
    "as_float",
    "is_shardable",
    "measures_itself",
    "own_loss",
    "written",
]


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

    def value(self, theta: FloatArray, layout: Parameters) -> float:
        """Return the loss at theta, shape (P,)."""
        ...

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


def measures_itself(loss: object) -> TypeGuard[MeasuresItself]:
    """Say whether a loss does; `isinstance` of a protocol takes as long as several losses of a small net."""
    return hasattr(loss, "measure") and isinstance(loss, MeasuresItself)


def own_loss(loss: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the loss that the user wrote, with its data: what a network stands for, where it was shown to be that."""
    if measures_itself(loss) and loss.like is not None:
        return loss.like, loss.args
    return loss, args


class Direction(Protocol):
    """A direction that nobody keeps: it is written where it is needed, as often as it is, always the same."""

    def __len__(self) -> int: ...

    def write(self, out: FloatArray) -> None:
        """Write its entries, shape (n,)."""
        ...

    def exact(self, step: float) -> bool:
        """Say whether theta plus the step along it is a vector of floats, so that it can be had back from there."""
        ...


def written(direction: FloatArray | Direction) -> FloatArray:
    """Return a direction as an array."""
    if isinstance(direction, np.ndarray):
        return direction
    out = np.empty(len(direction))
    direction.write(out)
    return out


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

    def lent(self) -> FloatArray:
        """Return a private theta for somebody to read; should it be written to, `untouched` puts it right."""
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

    def along(self, start: int, direction: FloatArray | Direction, steps: FloatArray) -> FloatArray:
        """Return ``J(theta + t * v)`` for every t of steps, where v is `direction` at ``[start:start+len]``, else 0.

        Parameters
        ----------
        start : int
            First coordinate of the range that moves.
        direction : float64, shape (n,), or Direction
            The range's part of v.
        steps : float64, shape (k,)
        """
        ...


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


def is_shardable(evaluator: Evaluator) -> TypeGuard[Shardable]:
    """Say whether an evaluator is; `isinstance` of a protocol asks for every attribute, `untouched` among them."""
    return hasattr(evaluator, "twin")


# -- losses of a private, perturbed theta -----------------------------------------------------------------------------


def as_float(value: object) -> float:
    """Return a loss value as a float: a number, a scalar of any framework, or an array or a list of one.

    Raises
    ------
    LossError
        The value is not one real number: an array of more, None, a string, complex.
    """
    if isinstance(value, float):  # numpy.float64 is one
        return value
    if isinstance(value, (tuple, list)) and len(value) == 1 and not isinstance(value[0], (tuple, list)):
        return as_float(value[0])
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        raise LossError(
            f"loss returned an array of shape {shape}; it must return one real number. Reduce it, e.g. with np.mean or "
            "np.sum."
        )
    if value is np.ma.masked or (isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)):
        raise LossError("loss returned a masked value; it must return one real number. Leave out what is masked.")
    kind = "c" if isinstance(value, complex) else getattr(getattr(value, "dtype", None), "kind", "f")
    if value is None or isinstance(value, (bool, str, bytes)) or kind in "cbSU":
        hint = "Is its `return` missing?" if value is None else "Return J.real." if kind == "c" else "Return float(J)."
        raise LossError(
            f"loss returned {value!r} (type={type(value).__name__}); it must return one real number. {hint}"
        )
    if isinstance(value, (tuple, list)) and len(value) == 2:
        raise LossError(
            f"loss returned a {type(value).__name__} of 2; it must return one real number. Where it returns (loss, "
            "gradient), pass gradient=True: check(loss, True, params). Else return the loss alone."
        )
    try:
        one: Any = np.asarray(value) if shape and not hasattr(value, "item") else value
        return float(one.item() if hasattr(one, "item") else one)
    except (TypeError, ValueError) as error:
        raise LossError(
            f"loss returned {value!r} (type={type(value).__name__}); it must return one real number."
        ) from error


class PerturbedLoss(ABC):
    """An `Evaluator` that perturbs a private copy of theta in place and restores it exactly."""

    _work: FloatArray

    home: Literal["threads", "processes"] = "processes"
    before_each: Callable[[], None] | None = None  # is called before an evaluation, and may end the run by raising

    def __init__(
        self, loss: Callable[..., Any], layout: Parameters, theta: FloatArray, args: tuple[Any, ...] = ()
    ) -> None:
        self.layout = layout
        self.theta = theta
        self.evaluations = 0
        self.failure: str | None = None
        self.loss = loss
        self.args = args
        self._theirs = nullcontext if measures_itself(loss) else theirs

    def twin(self) -> Self:
        """See `Shardable.twin`."""
        return type(self)(self.loss, self.layout, self.theta, self.args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the working memory: it is made anew where the evaluator arrives."""
        return type(self), (self.loss, self.layout, self.theta, self.args)

    @property
    def has_args(self) -> bool:
        """See `Evaluator.has_args`."""
        return bool(self.args)

    def tree_of(self, theta: FloatArray) -> Any:
        """Return the tree of views into a theta."""
        return self.layout.unflatten(theta)

    def lent(self) -> FloatArray:
        """See `Evaluator.lent`: the working theta, which is theta itself between evaluations."""
        return self._work

    def represent(self, coordinates: IntArray, values: FloatArray) -> FloatArray:
        """See `Evaluator.represent`; the loss is given float64."""
        return values

    def base(self) -> float:
        """Return J(theta)."""
        return self._value("at theta")

    def _returned(self, tree: Any, counts: int = 1) -> Any:
        """Return what the loss does with a tree."""
        return self._called(self.loss, tree, *self.args, counts=counts)

    def _called(self, function: Callable[..., Any], *args: Any, counts: int = 1) -> Any:
        """Return what a function does, run as its owner runs it, after a look at what may end the run."""
        if self.before_each is not None:
            self.before_each()
        self.evaluations += counts
        with self._theirs():
            return function(*args)

    @property
    @abstractmethod
    def untouched(self) -> bool:
        """See `Evaluator.untouched`."""

    @abstractmethod
    def call(self) -> Any:
        """See `Evaluator.call`."""

    @abstractmethod
    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """See `Evaluator.on_grid`."""

    def along(self, start: int, direction: FloatArray | Direction, steps: FloatArray) -> FloatArray:
        """See `Evaluator.along`."""
        part = self._work[start : start + len(direction)]
        saved = self.theta[start : start + len(direction)]
        values, place = np.full(len(steps), math.nan), self._direction_in(start)
        before, left = math.nan, math.nan  # the last step, and what tells that its evaluation left the point as it was
        try:
            for k, t in enumerate(steps.tolist()):
                if isinstance(direction, np.ndarray):
                    np.multiply(direction, t, out=part)
                    part += saved
                else:
                    self._move(part, saved, direction, t, before if float(part @ saved) == left else math.nan)
                    before, left = t, float(part @ saved)
                values[k] = self._value(place)
        finally:
            part[:] = saved
        return values

    @staticmethod
    def _move(part: FloatArray, saved: FloatArray, direction: Direction, t: float, before: float) -> None:
        """Move a part of theta from a step before, NaN for none, to another: to draw a direction costs a small net."""
        if t == -before:
            np.subtract(part, saved, out=part)
            np.subtract(saved, part, out=part)
            return
        if not math.isnan(before) and direction.exact(before):
            part -= saved
            part /= before
        else:
            direction.write(part)
        part *= t
        part += saved

    def _value(self, place: str) -> float:
        try:
            value = as_float(self.call())
        except (Exception, SystemExit) as error:
            return self._fail(error, place)
        return value if math.isfinite(value) else self._fail(value, place)

    def _fail(self, what: BaseException | float, place: str) -> float:
        """Note why an evaluation gave no number, if it is the first, and return NaN."""
        if self.failure is None:
            if isinstance(what, BaseException):
                became, line = f"raised {said(what, line=False)}", line_of(what)
            else:
                became, line = f"returned {what}", ""
            self.failure = f"the loss {became} ({line}{'; ' if line else ''}at a step along {place})"
        return math.nan

    def _direction_in(self, start: int) -> str:
        return f"a direction in {self.layout.block_at(start).name}"

    def _mask_failures(self, values: FloatArray, coordinates: IntArray) -> FloatArray:
        """Turn infinities into NaN, and note the first value that is not finite; rows belong to coordinates."""
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            self._fail(float(values[row, column]), self.layout.breadcrumb(int(coordinates[row])))
            values[bad] = np.nan
        return values
