"""A plain Python loss: one call per evaluation, perturbed in place on a private theta."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import LossError
from fastcheck.parameters import Parameters

__all__ = ["PythonLoss", "as_float"]


def as_float(value: object) -> float:
    """Return a loss value as a float.

    Raises
    ------
    LossError
        The value is not one real number: an array, None, a string, complex.
    """
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes, complex, np.complexfloating)) or value is None:
        raise LossError(
            f"loss returned {value!r} (type={type(value).__name__}); it must return one real number. Return float(J)."
        )
    shape = getattr(value, "shape", ())
    if shape != ():
        raise LossError(
            f"loss returned an array of shape {tuple(shape)}; it must return one real number. "
            "Reduce it, e.g. with np.mean or np.sum, or take .item() of an array of size one."
        )
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise LossError(
            f"loss returned {value!r} (type={type(value).__name__}); it must return one real number."
        ) from error


class PythonLoss:
    """An `Evaluator` over ``loss(params, *args) -> float``.

    Parameters
    ----------
    loss : callable
        The user's loss.
    layout : Parameters
        Layout of its parameters.
    theta : float64, shape (P,)
        The base point; copied once, never changed.
    args : tuple
        Extra positional arguments of the loss.
    dtype : {"float64", "user"}
        In which dtypes the loss is given its parameters: views of float64, or copies rounded to the user's dtypes.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        layout: Parameters,
        theta: FloatArray,
        args: tuple[Any, ...] = (),
        *,
        dtype: str = "float64",
    ) -> None:
        self.layout = layout
        self.theta = theta
        self.evaluations = 0
        self.failure: str | None = None
        self._loss = loss
        self._args = args
        self._work = theta.copy()
        self._views = dtype == "float64"
        self._tree = layout.unflatten(self._work) if self._views else None

    @property
    def has_args(self) -> bool:
        """Whether the loss takes more than its parameters."""
        return bool(self._args)

    def tree_of(self, theta: FloatArray) -> Any:
        """Return the tree this loss is given for a theta: views into it, or copies in the user's dtypes."""
        return self.layout.unflatten(theta) if self._views else self.layout.astype_user(theta)

    def call(self) -> Any:
        """Call the loss at the working theta and return what it returned."""
        self.evaluations += 1
        return self._loss(self._tree if self._views else self.layout.astype_user(self._work), *self._args)

    def represent(self, coordinates: IntArray, values: FloatArray) -> FloatArray:
        """See `Evaluator.represent`."""
        if self._views:
            return values
        out = values.copy()
        stops = np.array([block.stop for block in self.layout.blocks])
        number = np.searchsorted(stops, coordinates, side="right")
        for k in np.unique(number):
            mine = number == k
            out[mine] = values[mine].astype(self.layout.blocks[k].dtype)
        return out

    def base(self) -> float:
        """Return J(theta)."""
        return self._value("at theta")

    @property
    def untouched(self) -> bool:
        """Whether the loss left its parameters as they were given; if not, they are put right."""
        if np.array_equal(self._work, self.theta):
            return True
        self._work[:] = self.theta
        return False

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """See `Evaluator.on_grid`."""
        work, theta = self._work, self.theta
        values = np.empty((len(coordinates), len(offsets)))
        for row, (i, h) in enumerate(zip(coordinates.tolist(), steps.tolist(), strict=True)):
            saved = float(theta[i])
            try:
                for column, offset in enumerate(offsets):
                    work[i] = saved + offset * h  # rounded to the user's dtype, if need be, when the tree is built
                    values[row, column] = self._value_at(i)
            finally:
                work[i] = saved
        return values

    def along(self, start: int, direction: FloatArray, steps: FloatArray) -> FloatArray:
        """See `Evaluator.along`."""
        part = self._work[start : start + len(direction)]
        saved = self.theta[start : start + len(direction)]
        values = np.empty(len(steps))
        try:
            for k, t in enumerate(steps.tolist()):
                np.multiply(direction, t, out=part)
                part += saved
                values[k] = self._value(f"along a direction in {self.layout.block_at(start).name}")
        finally:
            part[:] = saved
        return values

    def _value_at(self, coordinate: int) -> float:
        try:
            value = as_float(self.call())
        except Exception as error:
            return self._fail(error, self.layout.breadcrumb(coordinate))
        return value if math.isfinite(value) else self._fail(value, self.layout.breadcrumb(coordinate))

    def _value(self, place: str) -> float:
        try:
            value = as_float(self.call())
        except Exception as error:
            return self._fail(error, place)
        return value if math.isfinite(value) else self._fail(value, place)

    def _fail(self, what: Exception | float, place: str) -> float:
        if self.failure is None:
            said = f"raised {type(what).__name__}: {what}" if isinstance(what, Exception) else f"returned {what}"
            self.failure = f"the loss {said} (step at {place})"
        return math.nan
