"""What a report tells of its run besides what was measured: the call, the loss, the day, the versions."""

from __future__ import annotations

import functools
import inspect
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastcheck.losses.batched import Batched

__all__ = ["record"]

LIBRARIES = ("numpy", "scipy", "numba", "torch", "jax")  # told where they are loaded


def record(
    loss: Callable[..., Any], args: tuple[Any, ...], call: str = "check(loss, gradient, params"
) -> dict[str, Any]:
    """Return the entries of a report's settings that do not come from the settings of the check.

    Parameters
    ----------
    loss : callable
        The user's function.
    args : tuple
        What else it is called with.
    call : str
        The call up to the options of all checks.
    """
    name, where = _source(loss)
    return {
        "call": call + (", args=args" if args else ""),
        "loss": name,
        "where": where,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"python": platform.python_version()}
        | {
            name: str(sys.modules[name].__version__)
            for name in LIBRARIES
            if hasattr(sys.modules.get(name), "__version__")
        },
    }


def _source(loss: Callable[..., Any]) -> tuple[str, str]:
    """Return the name of a function or of a callable's class, and its file and line; empty where there is none."""
    while isinstance(loss, (functools.partial, Batched)):
        loss = loss.func if isinstance(loss, functools.partial) else loss.loss
    loss = inspect.unwrap(loss)
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    if str(getattr(named, "__module__", "")).startswith("fastcheck.") and named is not loss:
        return "", ""  # a wrapper of our own
    function = loss if named is loss else type(loss).__call__
    code = getattr(function, "__code__", None)
    file = Path(code.co_filename) if code is not None else None
    if code is None or file is None or not file.is_file():  # compiled, or typed at a prompt
        return named.__qualname__, ""
    if file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return named.__qualname__, f"{file}:{code.co_firstlineno}"
