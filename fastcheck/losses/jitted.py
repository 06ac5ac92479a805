"""A loss compiled by Numba: the whole loop over a shard runs as machine code, without the interpreter's lock."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fastcheck.arrays import FloatArray, IntArray, equal
from fastcheck.errors import InputError
from fastcheck.losses.evaluator import PerturbedLoss
from fastcheck.parameters import Parameters

__all__ = ["JittedLoss"]


class JittedLoss(PerturbedLoss):
    """An `Evaluator` over a compiled ``loss(theta, *args) -> float``; args are scalars, arrays and tuples of them.

    The loss is given the flat theta; where params is one array, that array; and where it does not compile for a flat
    theta and params is a tuple of arrays, that tuple.

    Raises
    ------
    InputError
        The loss does not compile for such arguments.
    """

    def __init__(
        self, loss: Callable[..., Any], layout: Parameters, theta: FloatArray, args: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(loss, layout, theta, args)
        self._work = theta.copy()
        self._point = _point_for(loss, layout, self._work, args)
        # Numba's own threads serve one caller at a time in its default layer: such a loss is not run from several.
        parallel = bool(getattr(loss, "targetoptions", {}).get("parallel", False))
        self.home: Literal["threads", "processes"] = "processes" if parallel else "threads"

    @property
    def untouched(self) -> bool:
        """See `Evaluator.untouched`."""
        if equal(self._work, self.theta):
            return True
        self._work[:] = self.theta
        return False

    def call(self) -> Any:
        """Call the loss at theta and return what it returned."""
        return self._returned(self._point)

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """See `Evaluator.on_grid`."""
        from fastcheck.kernels.perturb import on_grid

        out = np.full((len(coordinates), len(offsets)), np.nan)
        probes = np.ascontiguousarray(coordinates, np.int64), np.ascontiguousarray(steps, np.float64)
        grid = np.array(offsets, np.float64)

        def run(cursor: IntArray) -> None:
            on_grid(self.loss, self._point, self._work, probes, grid, out, cursor, self.args)

        self._drive(run, out.size, lambda slot: self.layout.breadcrumb(int(coordinates[slot // len(offsets)])))
        return self._mask_failures(out, coordinates)

    def _drive(self, run: Callable[[IntArray], None], slots: int, place: Callable[[int], str]) -> None:
        """Run a kernel to its end, past the slots at which the loss raises."""
        from numba.core.errors import NumbaError

        cursor = np.zeros(1, np.int64)
        while cursor[0] < slots:
            try:
                run(cursor)
            except NumbaError as error:
                raise InputError(
                    f"loss={self.loss!r} does not compile into the kernel: {_first_lines(error)} Let it return one "
                    "float, or pass loss.py_func to check the Python function."
                ) from error
            except Exception as error:
                self._fail(error, place(int(cursor[0])))
                self._work[:] = self.theta
                cursor[0] += 1
        self.evaluations += slots


def _point_for(loss: Any, layout: Parameters, work: FloatArray, args: tuple[Any, ...]) -> Any:
    """Return what the loss is given: the form of params it compiles for, as views into the working theta."""
    from numba.core.errors import NumbaError

    _refuse_args(args)
    tree = layout.unflatten(work)
    forms: list[Any] = [work]
    if isinstance(tree, np.ndarray) and tree.ndim != 1:
        forms.insert(0, tree)
    elif isinstance(tree, tuple):
        forms.append(tree)
    refused: Exception | None = None
    for point in forms:
        try:
            _compile(loss, (point, *args))
        except (NumbaError, TypeError) as error:
            refused = refused or error
        else:
            return point
    raise InputError(
        f"loss={getattr(loss, '__name__', loss)!r} is compiled by Numba but does not accept a flat float64 theta of "
        f"shape {work.shape} and {len(args)} further arguments: {_first_lines(refused)} Let it take the flat theta "
        "(params is flattened block by block), or pass loss.py_func to check the Python function."
    ) from refused


def _compile(loss: Any, arguments: tuple[Any, ...]) -> None:
    numba: Any = importlib.import_module("numba")
    types = tuple(numba.typeof(argument) for argument in arguments)
    loss.get_call_template(types, {})


def _refuse_args(args: tuple[Any, ...]) -> None:
    """Name the argument that Numba knows no type for."""
    numba: Any = importlib.import_module("numba")
    for number, argument in enumerate(args):
        try:
            known = not getattr(numba.typeof(argument), "reflected", False)  # a list or set would be copied each call
        except (ValueError, TypeError):
            known = False
        if not known:
            raise InputError(
                f"args[{number}]={argument!r} (type={type(argument).__name__}) can't be passed to a compiled loss. "
                "Pass arrays, numbers and tuples of them, e.g. np.asarray(...)."
            )


def _first_lines(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) + ("." if lines and not lines[-1].endswith(".") else "")
