"""A gradient checked in double precision, and what is left of it in the precision it is used in.

Differences of a float32 loss keep some four digits, too few to tell right from wrong at most coordinates. So where the
loss takes float64, both it and the gradient are evaluated in that, and the gradient in the user's own precision is
then compared with the one that was checked: exactly, coordinate by coordinate, without any differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import Parameters
from fastcheck.products.vectors import COTANGENT, bounded
from fastcheck.report import Report
from fastcheck.verdict import WRONG_ABOVE, Verdict, worst

__all__ = [
    "converted",
    "flat",
    "in_double",
    "is_double",
    "refuse_another",
    "remark",
    "weights_like",
    "with_own_precision",
    "without_rounding",
]

SMALL = 1e-3
"""Of the norm of the whole gradient: a block that is smaller is compared with that. In front of a batch normalisation
the gradient of a bias is zero, and what rounding leaves there is no error of the formulas."""

ALIKE = 3.0
"""Square roots of the unit roundoff by which a function in low precision may differ from itself in double."""

ROUNDING = 64
"""Unit roundoffs, of the largest entry of a block, by which an entry of a gradient may be off for rounding."""

CANCELLED = 1e-10
"""Of the largest entry of the gradient: a block below that in double precision is zero but for rounding, which is
relative to what cancels in it and not to what is left."""


def converted(report: Report, params: Mapping[str, Any]) -> bool:
    """Say whether parameters of less than float64 were checked in that: the loss did not refuse it."""
    return not is_double(params) and not any(finding.kind is Kind.LOW_PRECISION for finding in report.findings)


def is_double(tree: Mapping[str, Any]) -> bool:
    """Say whether a dict of arrays has float64 throughout."""
    return all(array.dtype == np.float64 for array in tree.values())


def flat(arrays: Mapping[str, Any]) -> Any:
    """Return a dict of arrays as one vector."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def weights_like(arrays: Mapping[str, Any]) -> dict[str, FloatArray]:
    """Return a dict of arrays of these shapes, at random and away from zero, always the same ones."""
    layout = Parameters.of(arrays)
    return layout.unflatten(bounded(0, COTANGENT, 0, layout.size))  # type: ignore[no-any-return]


def in_double(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in float64."""
    return {name: array.astype(np.float64) for name, array in params.items()}


def refuse_another(own: Any, double: Any, params: Mapping[str, Any]) -> None:
    """Compare a function in its own precision with itself in double.

    Parameters
    ----------
    own, double : array
        What it returns in either.
    params : mapping of str to array
        In their own precision.

    Raises
    ------
    TypeError
        They differ by more than rounding: where it draws random numbers, it may draw others in float64.
    """
    eps = max(float(np.finfo(array.dtype).eps) for array in params.values())
    own, double = np.asarray(own, dtype=np.float64), np.asarray(double, dtype=np.float64)
    size = max(float(np.linalg.norm(own)), float(np.linalg.norm(double)))
    if float(np.linalg.norm(own - double)) > ALIKE * eps**0.5 * size:
        raise TypeError(
            f"in float64 it is another function: {own.flat[0]:.6g} becomes {double.flat[0]:.6g}; random draws?"
        )


def remark(dtype: Any, own: set[str]) -> list[Finding]:
    """Return what to say where a dtype was asked for that is not that of the parameters."""
    others = sorted(own - {str(dtype)})
    if dtype is None or not others:
        return []
    message = f"Checked in {dtype}, on a copy of the parameters, which are {', '.join(others)}."
    return [Finding(Kind.CONVERTED, None, message, {"dtype": str(dtype), "own": others})]


def with_own_precision(report: Report, own: Mapping[str, Any], double: Mapping[str, Any]) -> Report:
    """Return the report with a finding of how far the gradient in its own precision is from the one checked.

    Parameters
    ----------
    report : Report
        Of the check in double precision.
    own, double : mapping of str to array
        The gradient in either precision, at the same parameters. Where a block of the first is off by more than a
        relative 1e-2, a gradient that passed becomes suspicious.
    """
    whole = np.sqrt(sum(float(np.sum(np.square(g))) for g in double.values()))
    errors = {}
    for name in (name for name in double if name in report.blocks):
        exact = np.asarray(double[name], dtype=np.float64)
        scale = max(float(np.linalg.norm(exact)), SMALL * whole)
        error = float(np.linalg.norm(np.asarray(own[name], dtype=np.float64) - exact))
        errors[name] = error / scale if error else 0.0
    name = max(errors, key=lambda each: np.nan_to_num(errors[each], nan=np.inf))
    dtypes = ", ".join(sorted({str(np.asarray(g).dtype) for g in own.values()} - {"float64"}))
    far = not errors[name] <= WRONG_ABOVE
    verdict = worst([report.verdict, Verdict.SUSPICIOUS]) if far and report.passed else report.verdict
    tail = ": more than rounding does, unless it is another function in float64." if far else "."
    finding = Finding(
        Kind.OWN_PRECISION,
        name if far else None,
        f"Checked in float64, on a copy of the {dtypes} parameters. The {dtypes} gradient itself differs from the one "
        f"checked by a relative {errors[name]:.1e} at most, in {name}{tail}",
        {"dtype": dtypes, "errors": errors},
    )
    place = 0 if far else 1
    return replace(report, verdict=verdict, findings=(*report.findings[:place], finding, *report.findings[place:]))


def without_rounding(claimed: Mapping[str, Any], double: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claimed gradient of low precision, its entries in double precision where they differ by rounding alone.

    Parameters
    ----------
    claimed, double : mapping of str to array
        The claimed gradient, and the framework's own in double precision. The latter is no authority: where the two
        agree it is what the finite differences judge, only without the rounding of the former.
    """
    largest = max(float(np.abs(g).max(initial=0.0)) for g in double.values())
    found = dict(claimed)
    for name, array in claimed.items():
        array = np.asarray(array)
        if name in double and array.dtype in (np.float32, np.float16) and array.shape == double[name].shape:
            scale = float(np.abs(double[name]).max(initial=0.0))
            scale = largest if scale <= CANCELLED * largest else scale
            near = np.abs(array - double[name]) <= ROUNDING * float(np.finfo(array.dtype).eps) * scale
            found[name] = np.where(near, double[name], array.astype(np.float64))
    return found
