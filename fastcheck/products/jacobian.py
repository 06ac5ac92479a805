"""check_jacobian(): a Jacobian as optimisers take it, a matrix: dense, sparse, or only its products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.conclude import record
from fastcheck.domain import Box
from fastcheck.errors import LossError
from fastcheck.findings import Finding, Kind
from fastcheck.measure.directions import TANGENT, bounded, unit
from fastcheck.products.checks import Checks, positive
from fastcheck.products.claims import TransposedClaim
from fastcheck.products.jvp import report_of
from fastcheck.products.matrix import System, X, has_adjoint, is_operator, is_stored, vector
from fastcheck.products.point import LinearizationPoint, Product
from fastcheck.products.vjp import report_of_claim
from fastcheck.report import Coordinate, Report
from fastcheck.settings import as_args

__all__ = ["check_jacobian"]

JAC = "jac"
COLUMNS = 16  # of which single entries are looked at
LISTED = 10
STEP = 6e-6  # where a check left none: the cube root of the roundoff
ROUNDINGS, SAFETY = 8.0, 10.0
SMALL = 1e-6  # of the largest entry of a column: an entry that is off by less is no reason for a failure
KEY = 1 << 18  # of the vector that a transpose is told by


def check_jacobian(
    fun: Callable[..., Any],
    jac: Any,
    x0: Any,
    *,
    args: tuple[Any, ...] = (),
    bounds: Any = None,
    cotangents: int | None = None,
    tangents: int | None = None,
    throw: bool = False,
    **options: Any,
) -> Report:
    """Check a Jacobian matrix, as ``scipy.optimize`` takes it, against finite differences of its function.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns m numbers; with ``jac=True`` a pair of them and the Jacobian.
    jac : callable, matrix or True
        ``jac(x, *args)``, or what it returns at x0: an array of shape (m, n), a sparse matrix, or a LinearOperator.
        ``jac[i, j]`` is the derivative of output i by ``x[j]``.
    x0 : array, shape (n,)
        Where to check.
    args : tuple
        Further positional arguments of both.
    bounds : (low, high), optional
        Where fun may be evaluated; as for `fastcheck.check`.
    cotangents, tangents : int, optional
        As for `fastcheck.check_vjp` and, where there are products alone, `fastcheck.check_jvp`.
    throw : bool
        Raise `GradientError` unless the verdict is a pass.
    **options
        As for `fastcheck.check_vjp`.

    Returns
    -------
    Report
        Of the products with the Jacobian: block ``"jac"``, of shape (m, n). ``wrong`` lists entries, and the finding
        ``"entries"`` says of a sparse one whether they are in its pattern. Of a LinearOperator ``rmatvec`` and
        ``matvec`` are both checked, and the report is of the one that is worse.

    Raises
    ------
    InputError
        An argument breaks a rule, or the shapes do not fit.
    LossError
        The function or the Jacobian raises, or returns a value that is not finite.
    GradientError
        With ``throw=True``, when the Jacobian did not pass.
    """
    args = as_args(args)
    counts = positive("tangents", tangents), positive("cotangents", cotangents)
    x = vector(x0, "x0")
    checks = Checks("check_jacobian", options)
    subject = System.of(fun, jac, args, x, None if bounds is None else Box.of(bounds, x, "x0"))
    point = LinearizationPoint.of(subject.function, {X: x}, (), ("fun", "x0", "output"))
    reports = list(_reports(subject, point, checks, counts))
    report = _in_entries(max(reports, key=lambda one: one.verdict.severity), subject, point)  # the first of the worst
    call = "check_jacobian(fun, jac, x0" + (", bounds=bounds" if bounds is not None else "")
    report = replace(
        report,
        evaluations=checks.evaluations,
        seconds=checks.seconds,
        settings={**report.settings, **record(fun, args, call)},
    )
    return report.raise_if_wrong() if throw else report


def _reports(
    subject: System, point: LinearizationPoint, checks: Checks, counts: tuple[int | None, int | None]
) -> Iterator[Report]:
    """Yield the report of J^T u, and for an operator that of J v."""
    matrix = subject.at(point.theta)
    operator = is_operator(matrix)
    if not operator or has_adjoint(matrix, point.outputs.size):
        claim = TransposedClaim(point, Product(subject.vjp, "rmatvec" if operator else "jac.T @ u", "cotangent"))
        yield report_of_claim(claim, checks, counts[1])
    if operator:
        yield report_of(point, Product(subject.jvp, "matvec", "tangent"), checks, "", *counts)


def _in_entries(report: Report, subject: System, point: LinearizationPoint) -> Report:
    """Return the report with the Jacobian as its block, and the wrong entries of the columns that are wrong."""
    rows, size = point.outputs.size, point.outputs.size * point.theta.size
    seen, refuted = report.blocks[X], report.verdict.refuted
    each = rows == 1 or len(set(report.settings["cotangents"])) > rows  # all outputs, and every one alone
    columns = _columns(report, point) if refuted else []
    checked = size if each and seen.checked == seen.size else rows * len(columns)
    found = list(_entries(report, subject, point, columns))
    turned = _transposed(subject, point) if refuted else None
    known = [turned] if turned is not None else [_said(found)] if found else []
    block = replace(
        seen, shape=(rows, point.theta.size), size=size, checked=checked, wrong=len(found) if checked else seen.wrong
    )
    others = [f for f in report.findings if not (known and f.kind in (Kind.COORDINATE, Kind.REGION, Kind.UNKNOWN))]
    return replace(
        report,
        blocks={JAC: block},
        wrong=tuple(one for one, _ in found[:LISTED]),
        sweep=None,
        findings=(*known, *(replace(f, block=JAC if f.block == X else f.block) for f in others), *_quiet(subject)),
        coverage=checked / size,
    )


def _quiet(subject: System) -> Iterator[Finding]:
    """Yield a finding of rows that nothing can be said of."""
    if subject.quiet:
        names = [f"output[{i}]" for i in subject.quiet]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        message = (
            f"{shown}: the row of jac is so small beside the value of the output that its errors drown in rounding. "
            "Check those outputs without their constant part, to see them."
        )
        yield Finding(Kind.SILENT_OUTPUTS, None, message, {"outputs": names})


def _columns(report: Report, point: LinearizationPoint) -> list[int]:
    """Return the columns whose entries are looked at one by one."""
    wrong = [int(c.index[0]) for c in report.wrong]
    return (wrong or list(range(point.theta.size)))[:COLUMNS]


def _entries(
    report: Report, subject: System, point: LinearizationPoint, columns: list[int]
) -> Iterator[tuple[Coordinate, bool]]:
    """Yield the wrong entries of some columns, worst first, and whether a sparse matrix stores them."""
    matrix, step = subject.at(point.theta), report.settings.get("steps", {}).get(X, STEP)
    found = []
    for j in columns:
        claimed, measured, uncertainty = _column(subject, point, j, step)
        if measured is None:
            continue
        scale = max(float(np.abs(claimed).max()), float(np.abs(measured).max()))
        error = np.abs(claimed - measured)
        for i in np.flatnonzero(error > SAFETY * uncertainty + SMALL * scale):
            place = (int(i), j)
            entry = [float(value[i] * subject.scale[i]) for value in (claimed, measured, uncertainty)]
            found.append((float(error[i]), Coordinate(JAC, place, *entry), is_stored(matrix, place)))
    for _, coordinate, stored in sorted(found, key=lambda one: -one[0]):
        yield coordinate, stored


def _column(subject: System, point: LinearizationPoint, j: int, step: float) -> tuple[FloatArray, Any, FloatArray]:
    """Return a column as claimed and as measured, None where it can't be, and how far off the latter may be."""
    e = unit(j, point.theta.size)
    claimed = np.asarray(subject.jvp({X: point.theta}, {X: e}), dtype=np.float64)
    h = max(float(np.max(step)), STEP * abs(float(point.theta[j])))
    try:
        at = {k: point.at(point.theta + k * h * e) for k in (-2, -1, 1, 2)}
    except LossError:
        return claimed, None, claimed
    near, far = (at[1] - at[-1]) / (2 * h), (at[2] - at[-2]) / (4 * h)
    rounding = ROUNDINGS * np.finfo(float).eps * np.maximum(np.abs(at[1]), np.abs(at[-1])) / h
    return claimed, near, np.abs(near - far) + rounding


def _said(found: list[tuple[Coordinate, bool]]) -> Finding:
    """Return the finding of wrong entries."""
    worst, _ = found[0]
    missing = [list(c.index) for c, stored in found if not stored]
    message = f"{worst.name} is {worst.analytic:.6g}, measured {worst.numerical:.6g}: output by entry of x."
    if len(found) > 1:
        message += f" Wrong too: {_listed([list(c.index) for c, _ in found[1:]])}."
    if missing:
        message += f" The sparsity pattern lacks {_listed(missing)}: add {'them' if len(missing) > 1 else 'it'} there."
    evidence = {"entries": [list(c.index) for c, _ in found], "missing": missing, "blocks": [JAC]}
    return Finding(Kind.ENTRIES, JAC, message, evidence)


def _listed(places: list[list[int]]) -> str:
    return ", ".join(map(str, places[:4])) + (f" and {len(places) - 4} more" if len(places) > 4 else "")


def _transposed(subject: System, point: LinearizationPoint) -> Finding | None:
    """Return a finding where the transposed matrix agrees along a random direction, and the matrix does not."""
    size = point.theta.size
    if point.outputs.size != size or size == 1:
        return None
    v = bounded(0, TANGENT + KEY, 0, size)
    h = STEP * (float(np.abs(point.theta).max()) or 1.0)
    try:
        measured = (point.at(point.theta + h * v) - point.at(point.theta - h * v)) / (2 * h) * subject.scale
        turned = np.asarray(subject.vjp({X: point.theta}, v * subject.scale)[X], dtype=np.float64)
    except Exception:  # what can't be had says nothing
        return None
    if not np.linalg.norm(turned - measured) <= math.sqrt(SMALL) * np.linalg.norm(measured):
        return None
    message = "jac is the transposed Jacobian: jac[i, j] must be the derivative of output i by x[j]. Return jac.T."
    return Finding(Kind.TRANSPOSE, JAC, message, {"blocks": [JAC]})
