"""A plain Python loss: one call per evaluation, perturbed in place on a private theta."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Self

import numpy as np

from fastcheck.arrays import FloatArray, IntArray, equal
from fastcheck.errors import said
from fastcheck.losses.evaluator import PerturbedLoss, as_float, measures_itself
from fastcheck.parameters import Parameters, leaves

__all__ = ["PythonLoss", "as_float"]


class PythonLoss(PerturbedLoss):
    """An `Evaluator` over ``loss(params, *args) -> float``.

    The dtype, ``"float64"`` or ``"user"``, tells in which the loss is given its parameters: as views of float64, or as
    copies rounded to the user's dtypes.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        layout: Parameters,
        theta: FloatArray,
        args: tuple[Any, ...] = (),
        dtype: str = "float64",
    ) -> None:
        super().__init__(loss, layout, theta, args)
        self.refusal: str | None = None  # why the loss is not given float64, if it would not have it
        self._dtype = dtype
        self._work = theta.copy()
        self._views = dtype == "float64"
        self._tree = layout.unflatten(self._work) if self._views else None
        self._arrays = [leaf for _, leaf in leaves(self._tree)] if self._views else []

    @classmethod
    def in_its_precision(
        cls, loss: Callable[..., Any], layout: Parameters, theta: FloatArray, args: tuple[Any, ...]
    ) -> Self:
        """Return the evaluator in float64, or in the user's own dtypes if the loss works in those alone.

        Where the parameters are of low precision it costs one evaluation to find out, and two if float64 is refused.
        """
        shadow = cls(loss, layout, theta, args)
        if all(block.dtype.itemsize >= theta.itemsize for block in layout.blocks):
            return shadow
        trial = shadow.twin()
        try:
            trial.call()
        except (Exception, SystemExit) as error:
            low = cls(loss, layout, theta, args, "user")
            try:
                low.call()
            except (Exception, SystemExit):  # theta itself fails: the preflight tells it
                return shadow
            low.evaluations += trial.evaluations
            low.refusal = said(error, line=False)
            return low
        shadow.evaluations = trial.evaluations
        return shadow

    def twin(self) -> Self:
        """See `Shardable.twin`."""
        return type(self)(self.loss, self.layout, self.theta, self.args, self._dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.loss, self.layout, self.theta, self.args, self._dtype)

    def tree_of(self, theta: FloatArray) -> Any:
        """Return the tree this loss is given for a theta: views into it, or copies in the user's dtypes."""
        return self.layout.unflatten(theta) if self._views else self.layout.astype_user(theta)

    def call(self) -> Any:
        """Call the loss at the working theta and return what it returned."""
        if self._views and measures_itself(self.loss):  # it takes theta as it is, and needs no look at a tree
            return self._called(self.loss.value, self._work, self.layout)
        return self._returned(self._tree if self._views else self.layout.astype_user(self._work))

    def represent(self, coordinates: IntArray, values: FloatArray) -> FloatArray:
        """See `Evaluator.represent`."""
        if self._views:
            return values
        out = values.copy()
        number = np.searchsorted(self.layout.stops, coordinates, side="right")
        with np.errstate(over="ignore"):  # half precision ends at 65504: an infinity says so
            for k in np.unique(number):
                mine = number == k
                out[mine] = values[mine].astype(self.layout.blocks[k].dtype)
        return out

    @property
    def untouched(self) -> bool:
        """See `Evaluator.untouched`."""
        kept = not self._views or all(a is b for a, (_, b) in zip(self._arrays, leaves(self._tree), strict=False))
        if kept and equal(self._work, self.theta):
            return True
        self._work[:] = self.theta
        if not kept:  # the loss put other arrays into its tree: they would not move with theta
            self._tree = self.layout.unflatten(self._work)
            self._arrays = [leaf for _, leaf in leaves(self._tree)]
        return False

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """See `Evaluator.on_grid`."""
        # Written flat, in local names, because what stands in this loop is paid for with every evaluation.
        work, loss, args, views = self._work, self.loss, self.args, self._views
        tree, rounded = self._tree, self.layout.astype_user
        values: list[float] = []
        rows = zip(coordinates.tolist(), steps.tolist(), self.theta[coordinates].tolist(), strict=True)
        look = self.before_each
        with self._theirs():  # around them all: what is not the loss's own here, floating point does not signal
            for i, h, saved in rows:
                try:
                    if look is not None:
                        look()
                    for offset in offsets:
                        work[i] = saved + offset * h  # rounded to the user's dtype, if need be, when the tree is built
                        try:
                            value = loss(tree if views else rounded(work), *args)
                            if not isinstance(value, float):
                                value = as_float(value)
                            if not isfinite(value):
                                value = self._fail(value, self.layout.breadcrumb(i))
                        except (Exception, SystemExit) as error:
                            value = self._fail(error, self.layout.breadcrumb(i))
                        values.append(value)
                except BaseException:  # Ctrl-C, or the end of a budget
                    self.evaluations += len(values)
                    raise
                finally:
                    work[i] = saved
        self.evaluations += len(values)
        return np.array(values, dtype=np.float64).reshape(len(coordinates), len(offsets))
