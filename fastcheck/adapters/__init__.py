"""What the adapters to torch and jax share: how a framework is loaded, and how a check is run for one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastcheck.checks import check
from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.held import Attributes
from fastcheck.losses.batched import Batched
from fastcheck.report import Report

__all__ = ["Sealed", "call_of", "framework", "input_names", "mapped", "measured", "multiplied", "refuse_forms"]

ONE_AT_A_TIME = ("workers", "backend")


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
    known = loss if isinstance(loss, Batched) else Sealed(loss)
    return check(known, gradient, params, args=args, **_serial(options))


def multiplied(
    check_product: Callable[..., Report],
    function: Callable[..., Any],
    product: Callable[..., Any],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    call: str,
) -> Report:
    """Check a product with the Jacobian of a function of numpy arrays, one evaluation after another.

    Parameters
    ----------
    check_product : callable
        `fastcheck.check_vjp` or `fastcheck.check_jvp`.
    function, product : callable
        Of dicts of arrays by name, which they return too.
    inputs : mapping of str to array
        Where to check.
    options : mapping
        Of the check.
    call : str
        What was called, for the report to say how it is repeated; see `call_of`.

    Raises
    ------
    InputError
        An option breaks a rule, or asks for workers.
    """
    if "args" in options:
        raise InputError(f"args={options['args']!r}: check_function takes none. Put them among its inputs.")
    report = check_product(Sealed(function), Sealed(product), inputs, **_serial(options))
    settings = {name: value for name, value in report.settings.items() if name not in ONE_AT_A_TIME}
    return replace(report, settings={**settings, "call": call})


def call_of(adapter: str, **own: Any) -> str:
    """Return how a function's check was called, up to the options of all checks; own options are None by default."""
    given = [f"{name}={value!r}" for name, value in own.items() if value is not None]
    return ", ".join([f"{adapter}.check_function(function, inputs", *given])


def _serial(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in ONE_AT_A_TIME:
        if name in options:
            raise InputError(
                f"{name}={options[name]!r}: the adapters evaluate one loss after another, in one process. Leave it out."
            )
    return {**options, "backend": "serial"}


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
