"""What the adapters to torch and jax share: how a framework is loaded, and how a check is run for one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastcheck.checks import check
from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.report import Report

__all__ = ["framework", "mapped", "measured"]

ONE_AT_A_TIME = ("workers", "backend")


def framework(name: str) -> Any:
    """Return the module of a framework.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f"{name} is not installed: pip install 'fastcheck[{name}]'") from error


def measured(
    loss: Callable[..., Any],
    gradient: Any,
    params: Any,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Report:
    """Check a loss of numpy arrays, one evaluation after another.

    Raises
    ------
    InputError
        An option is none of `fastcheck.check`, or asks for workers.
    """
    for name in ONE_AT_A_TIME:
        if name in options:
            raise InputError(
                f"{name}={options[name]!r}: the adapters evaluate one loss after another, in this process. The "
                "framework's own threads are used as they are set; leave it out."
            )
    return check(loss, gradient, params, args=args, backend="serial", **options)


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a nest of dicts, lists and tuples with a function applied to everything else in it."""
    if isinstance(value, Mapping):
        return {key: mapped(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(function, item) for item in value)
    return function(value)
