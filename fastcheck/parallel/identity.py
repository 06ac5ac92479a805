"""What a checkpoint belongs to: digests of the loss, its data, theta, the gradient and the settings.

A function is known by its bytecode, constants, defaults and closure, and by the same of the functions and by the
values of the arrays and numbers that it names in its module. An object that is none of these counts by its type,
its attributes and its methods. That can't see everything (a file the loss reads, a C extension), so J(theta) is
part of it, to the last bit.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import types
from typing import Any

import numpy as np

from fastcheck import __version__
from fastcheck.arrays import FloatArray
from fastcheck.losses.evaluator import Evaluator
from fastcheck.parameters import leaves

__all__ = ["digest", "identity"]

DEPTH = 12  # of functions that call functions, and of objects inside objects
FREE = ("workers", "backend", "budget", "checkpoint", "progress")  # settings that no number depends on


def identity(
    evaluator: Evaluator, loss: Any, args: tuple[Any, ...], base: float, gradient: FloatArray, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return what must be the same for a run to resume another.

    Parameters
    ----------
    evaluator : Evaluator
        Has the layout and theta.
    loss : callable
        The user's loss.
    args : tuple
        Its data.
    base : float
        J(theta).
    gradient : float64, shape (P,)
        The analytic gradient.
    settings : dict
        The settings as plain data.
    """
    layout = [[b.name, list(b.shape), str(b.dtype), b.order] for b in evaluator.layout.blocks]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "layout": digest(layout),
        "theta": digest(evaluator.theta),
        "args": digest(args),
        "loss": digest(loss),
        "J(theta)": float(base).hex(),
        "gradient": digest(gradient),
        **{key: value for key, value in settings.items() if key not in FREE},
    }


def digest(value: Any) -> str:
    """Return 32 hexadecimal digits that change when a function, an array or plain data does."""
    hasher = hashlib.sha256()
    _feed(hasher, value, DEPTH, set())
    return hasher.hexdigest()[:32]


def _feed(hasher: Any, value: Any, depth: int, seen: set[int]) -> None:
    """Feed a value, and what it is made of, to a hash."""
    hasher.update(f"<{type(value).__qualname__}>".encode())
    if isinstance(value, (type(None), bool, int, float, complex, str, bytes)):
        hasher.update(repr(value).encode())
        return
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        array = np.asarray(value)
        hasher.update(f"{array.dtype}{array.shape}".encode())
        hasher.update(array.tobytes() if not array.flags.c_contiguous else array.data)
        return
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    for part in _parts(value):
        _feed(hasher, part, depth - 1, seen)


def _parts(value: Any) -> list[Any]:
    """Return what an object is made of."""
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_varnames, *value.co_consts]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        named = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, *cells, *named]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc)):
        return [getattr(value, "__module__", ""), getattr(value, "__name__", "")]
    if hasattr(value, "py_func"):  # compiled by Numba
        return [value.py_func]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (dict, list, tuple)):
        return [item for pair in leaves(value) for item in pair]
    methods = [item for item in vars(type(value)).values() if isinstance(item, types.FunctionType)]
    return [sorted(getattr(value, "__dict__", {}).items()), *methods]


def _names(code: types.CodeType) -> list[str]:
    """Return the names that a function, and the functions defined in it, look up in their module."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return [*code.co_names, *inner]


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
