"""How a check is run for a framework: on numpy arrays, in double precision, and then in the owner's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fastcheck.adapters import Sealed
from fastcheck.adapters.precision import Subject, with_own_precision
from fastcheck.checks import check
from fastcheck.errors import InputError
from fastcheck.findings import Finding
from fastcheck.losses.batched import Batched
from fastcheck.losses.evaluator import MeasuresItself
from fastcheck.parallel.blas import one_blas_thread
from fastcheck.report import Report

__all__ = ["alone", "call_of", "concluded", "measured", "multiplied", "named", "refuse_no_function"]

ONE_AT_A_TIME = ("workers", "backend")


def measured(
    loss: Callable[..., Any],
    gradient: Any,
    params: Any,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    call: str,
) -> Report:
    """Check a loss of numpy arrays, one evaluation after another; `call` says how that is repeated, see `call_of`.

    Raises
    ------
    InputError
        An option is none of `fastcheck.check`, or asks for workers.
    """
    known = loss if isinstance(loss, (Batched, MeasuresItself)) else Sealed(loss)
    report = check(known, gradient, params, args=args, **_serial(options))
    call += ", bounds=bounds" if options.get("bounds") is not None else ""
    return _repeated(report, call, step=options.get("step"))


def multiplied(
    check_product: Callable[..., Report],
    function: Callable[..., Any],
    product: Callable[..., Any],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    call: str,
) -> Report:
    """Check a product with the Jacobian of a function of dicts of arrays by name, one evaluation after another.

    `check_product` is one of fastcheck's three; `call` says how the report is repeated, see `call_of`.

    Raises
    ------
    InputError
        An option breaks a rule, or asks for workers.
    """
    if "args" in options:
        raise InputError(f"args={options['args']!r}: check_function takes none. Put them among its inputs.")
    report = check_product(Sealed(function), Sealed(product), inputs, **_serial(options))
    return _repeated(report, call)


def _repeated(report: Report, call: str, **own: Any) -> Report:
    """Return a report that says how the user's call is repeated."""
    settings = {name: value for name, value in report.settings.items() if name not in ONE_AT_A_TIME}
    return replace(report, settings={**settings, "call": call, **own})


def concluded(
    report: Report,
    subject: Subject | None,
    remarks: Iterable[Finding],
    throw: bool,
    began: float,
    compilation: Callable[[], float] | None = None,
) -> Report:
    """Return a report with all that an adapter adds to it, the `remarks` among that.

    The derivative of a subject, if there is one, is compared once in its own precision. The report's seconds are all
    since the call began, of ``time.perf_counter()``; `compilation` returns how many of them went into tracing and
    compiling.

    Raises
    ------
    GradientError
        As asked.
    """
    another = subject is not None and bool(subject.narrowed or subject.own - {"float64", "complex128"})
    if subject is not None and another and not any(f.kind == "low_precision" for f in report.findings):
        with one_blas_thread(look=False):  # others would wait for work, and take it from the threads of the framework
            report = with_own_precision(report, subject)
    seconds = time.perf_counter() - began
    settings = {**report.settings, **({} if compilation is None else {"compilation": compilation()})}
    report = replace(report, findings=(*report.findings, *remarks), seconds=seconds, settings=settings)
    return report.raise_if_wrong() if throw else report


def refuse_no_function(name: str, given: Any) -> None:
    """Raise for what is neither a function nor None.

    Raises
    ------
    InputError
        It is something else.
    """
    if given is not None and not callable(given):
        raise InputError(f"{name}={given!r} (type={type(given).__name__}) is not callable: pass the function.")


def call_of(call: str, **own: Any) -> str:
    """Return how a check was called, up to the options of all checks; own options are None by default."""
    given = [f"{name}={value!r}" for name, value in own.items() if value is not None]
    return ", ".join([call, *given])


def _serial(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in ONE_AT_A_TIME:
        if name in options:
            raise InputError(
                f"{name}={options[name]!r}: the adapters evaluate one loss after another, in one process. Leave it out."
            )
    return {**options, "backend": "serial"}


def alone(function: Callable[..., Any], reference: Any, dtype: Any = None, forward: bool = False) -> Callable[..., Any]:
    """Return the function that differences are taken of: the reference, where there is one.

    Raises
    ------
    InputError
        It is not callable, or an option says otherwise.
    """
    if reference is None:
        return function
    if not callable(reference):
        kind = type(reference).__name__
        raise InputError(f"reference={reference!r} (type={kind}) is not callable: pass the plain function.")
    if dtype is not None or forward:
        raise InputError(
            f"{'forward=True' if forward else f'dtype={dtype!r}'}: with a reference, the kernel's backward pass runs "
            "in the precision of its inputs. Leave it out."
        )
    return reference  # type: ignore[no-any-return]


def named(reference: Any) -> Any:
    """Return a reference as a call of the check shows it."""
    if reference is None or isinstance(reference, str):
        return reference and _Name(reference)
    return _Name(getattr(reference, "__name__", type(reference).__name__))


class _Name(str):
    """A text that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
