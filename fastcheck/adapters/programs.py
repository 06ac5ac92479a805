"""Functions of arrays as compiled programs of jax, in the user's own precision or in double, kept for the next check.

A program is told from others by its jaxpr, not by the function that made it: a closure over other data makes the same
program with other constants, a changed function another program. So a second check of a loss compiles nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fastcheck.adapters import framework
from fastcheck.adapters.pytrees import as_array, double_precision
from fastcheck.adapters.wide import evaluate, fingerprint, wide_dtype

__all__ = ["Program", "Trace"]

KEPT = 64  # compiled programs

_compiled: OrderedDict[Any, tuple[Any, set[str]]] = OrderedDict()


class Trace:
    """A function of arrays, traced as the user runs it, once for all precisions.

    Parameters
    ----------
    function : callable
        ``function(*arrays)`` returns a pytree of arrays; it is called once, to be traced.
    example : sequence of jax.ShapeDtypeStruct
        Shapes and dtypes of the user's arrays.

    Attributes
    ----------
    closed : callable
        Returns the program, a ``jax.core.ClosedJaxpr``; a function, so that no search for generators goes through it.
    tree : PyTreeDef
        Of what it returns.
    told : tuple or None
        What tells it from others, its constants left out; None where that can't be told.
    seconds : float
        That tracing took.

    Raises
    ------
    Exception
        What tracing raises: a branch on a value, say.
    """

    def __init__(self, function: Callable[..., Any], example: Sequence[Any]) -> None:
        jax, began = framework("jax"), time.perf_counter()
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*example)
        self.closed: Callable[[], Any] = lambda: closed
        self.tree, told = jax.tree_util.tree_structure(shape), fingerprint(closed)
        self.told = told and (told, tuple(map(str, closed.in_avals)), bool(jax.config.jax_enable_x64))
        self.seconds = time.perf_counter() - began

    def __getstate__(self) -> tuple[Any, ...]:
        """Return what tells the program from others, as a checkpoint asks; it is never pickled."""
        if self.told is None:
            raise TypeError("the program of a callback or of a custom kernel has no text")
        return (self.told, [np.asarray(const) for const in self.closed().consts])


class Program:
    """A traced function, compiled.

    Parameters
    ----------
    trace : Trace
    double : bool
        Whether to run it in double precision.
    stacked : int, optional
        How many of the first arrays have a leading axis of many sets when it is called.

    Attributes
    ----------
    narrowed : set of str
        The dtypes that it casts wider numbers to, where it runs in double precision: it then does not.
    seconds : float
        That making it took, and the first call.

    Raises
    ------
    Unsupported
        There is a primitive in it that can't be widened.
    """

    def __init__(self, trace: Trace, double: bool, stacked: int = 0) -> None:
        jax, began, self._called = framework("jax"), time.perf_counter(), False
        self._trace, self._double, self._stacked, closed = trace, double, stacked, trace.closed()
        with self._precision():
            self._consts = [_moved(const, double) for const in closed.consts]
        key = trace.told and (trace.told, double, stacked)
        made: tuple[Any, set[str]] | None = _compiled.pop(key, None)
        if made is None:
            made = _made(closed.jaxpr, double, stacked)
            if double:  # a primitive that can't be widened is seen here, not in the middle of a check
                given = [
                    jax.ShapeDtypeStruct((1, *x.shape) if k < stacked else x.shape, wide_dtype(x.dtype))
                    for k, x in enumerate(closed.in_avals)
                ]
                with self._precision():
                    jax.eval_shape(made[0], self._consts, *given)
        if key is not None:
            _compiled[key] = made
            while len(_compiled) > KEPT:
                _compiled.popitem(last=False)
        self._run: Callable[..., Any] = made[0]
        self.narrowed: set[str] = made[1]
        self.seconds = time.perf_counter() - began

    def __call__(self, *arrays: Any) -> Any:
        """Return the pytree of outputs, arrays of numpy of 32 or 64 bits."""
        jax = framework("jax")
        began = time.perf_counter()
        with self._precision():
            outs = self._run(self._consts, *arrays)
            found = [as_array(out) for out in outs]
        if not self._called:
            self.seconds, self._called = self.seconds + time.perf_counter() - began, True
        return jax.tree_util.tree_unflatten(self._trace.tree, found)

    def __getstate__(self) -> tuple[Any, ...]:
        """Return what tells the program from others, as a checkpoint asks; it is never pickled."""
        return (self._trace, self._double, self._stacked)

    def _precision(self) -> AbstractContextManager[Any]:
        return double_precision() if self._double else nullcontext()


def _made(jaxpr: Any, double: bool, stacked: int) -> tuple[Callable[..., Any], set[str]]:
    """Return a compiled function of constants and arrays, and the set that tracing it gives the dtypes of casts to."""
    jax = framework("jax")
    narrowed: set[str] = set()

    def one(consts: Any, *arrays: Any) -> Any:
        if double:
            return evaluate(jaxpr, consts, arrays, narrowed)
        return jax.core.eval_jaxpr(jaxpr, consts, *arrays)

    if not stacked:
        return jax.jit(one), narrowed
    axes = (None, *(0 if k < stacked else None for k in range(len(jaxpr.invars))))
    return jax.jit(jax.vmap(one, in_axes=axes)), narrowed


def _moved(const: Any, double: bool) -> Any:
    """Return a constant on the device; a floating one in double precision, if asked."""
    jax = framework("jax")
    dtype = getattr(const, "dtype", None)
    if dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.extended):
        return const
    array = const if isinstance(const, jax.Array) else np.asarray(const)
    return jax.numpy.asarray(array, dtype=wide_dtype(array.dtype) if double else None)
