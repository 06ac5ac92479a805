"""What the adapters to torch and jax share: how a framework is loaded, and how its nests are named and walked."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.held import Attributes

__all__ = ["Sealed", "framework", "input_names", "mapped", "refuse_forms"]


class Sealed:
    """A function that a checkpoint does not look into: what is inside is another object in each process.

    J(theta), theta, the data and the gradient still tell whether a run is the same.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *inputs: Any) -> Any:
        """Call the function."""
        return self._function(*inputs)


def refuse_forms(params: Any, gradient: Any) -> None:
    """Raise for the forms of code that only losses of NumPy arrays come in.

    Raises
    ------
    InputError
        The gradient is True, or the parameters are `fastcheck.attributes`.
    """
    if gradient is True:
        raise InputError(
            "gradient=True: pass the loss alone, and no gradient: autograd has it; or pass one to be checked."
        )
    if isinstance(params, Attributes):
        raise InputError(
            "params=attributes(...): a loss of a framework takes a module, a pytree or tensors; attributes() is for "
            "losses of NumPy arrays."
        )


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


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a nest of dicts, lists and tuples with a function applied to everything else in it."""
    if isinstance(value, Mapping):
        return {key: mapped(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(function, item) for item in value)
    return function(value)


def input_names(function: Callable[..., Any], count: int) -> list[str]:
    """Return names for the inputs: those of the function's parameters, or "input0", "input1"."""
    # torch's Function.apply takes *args: the names are those of its forward, which may have a context before them.
    named = getattr(getattr(function, "__self__", None), "forward", None)
    source = named if getattr(function, "__name__", "") == "apply" and callable(named) else function
    try:
        found = inspect.signature(source).parameters.values()
    except (TypeError, ValueError):
        found = ()  # type: ignore[assignment]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in found if parameter.kind in kinds]
    if source is not function and names[:1] == ["ctx"]:
        names = names[1:]
    return names[:count] if len(names) >= count else [f"input{i}" for i in range(count)]
