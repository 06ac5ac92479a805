"""check_jacobian(): a Jacobian as optimisers take it, a matrix: dense, sparse, or only its products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.conclude import record
from fastcheck.domain import Box, Continued
from fastcheck.errors import InputError, LossError, said
from fastcheck.findings import Finding, Kind
from fastcheck.measure.directions import TANGENT, bounded, unit
from fastcheck.products.checks import Checks, positive
from fastcheck.products.claims import TransposedClaim
from fastcheck.products.jvp import report_of
from fastcheck.products.point import LinearizationPoint, Product
from fastcheck.products.vjp import report_of_claim
from fastcheck.report import Coordinate, Report
from fastcheck.settings import as_args

__all__ = ["check_jacobian"]

X, JAC = "x", "jac"
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
    x = _vector(x0, "x0")
    function, matrix = _pair(fun, jac)
    subject = _Subject(function, matrix, args)
    known: Callable[..., Any] = subject.outputs
    if bounds is not None:
        known = Continued(known, Box.of(bounds, x, "x0"))
    subject = replace(subject, known=known)
    checks = Checks("check_jacobian", options)
    point = LinearizationPoint.of(subject.function, {X: x}, (), ("fun", "x0", "output"))
    subject.at(x, point.outputs.size)
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


@dataclass(frozen=True, eq=False)
class _Subject:
    """The function and its Jacobian; the last matrix is kept, as products ask for the same one again."""

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    known: Any = None
    _last: dict[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_last", {})

    def outputs(self, x: Any) -> Any:
        """Return the m numbers of a vector x."""
        return _vector(self.fun(x, *self.args), "fun(x0)", of="fun")

    def function(self, tree: Any) -> Any:
        """Return them, of a tree {"x": x}, and inside the bounds."""
        return self.known(tree[X])

    def at(self, x: FloatArray, rows: int = 0) -> Any:
        """Return the matrix at x; validated where the number of rows is given."""
        if rows or self._last.get("x") is None or not np.array_equal(self._last["x"], x):
            given = np.array(x)
            try:
                found = self.jac(given, *self.args) if callable(self.jac) and not _is_operator(self.jac) else self.jac
            except Exception as error:
                raise LossError(f"jac raised {said(error, ' at x0')}.") from error
            self._last.update(x=np.array(x), matrix=_matrix(found, rows, len(x)) if rows else _matrix(found))
        return self._last["matrix"]

    def vjp(self, tree: Any, cotangent: Any) -> Any:
        """Return J^T u."""
        matrix, u = self.at(tree[X]), np.asarray(cotangent, dtype=np.float64)
        return {X: _of_its_precision(matrix.rmatvec(u) if _is_operator(matrix) else matrix.T @ u, matrix)}

    def jvp(self, tree: Any, tangent: Any) -> Any:
        """Return J v."""
        matrix, v = self.at(tree[X]), np.asarray(tangent[X], dtype=np.float64)
        return _of_its_precision(matrix.matvec(v) if _is_operator(matrix) else matrix @ v, matrix)


def _reports(
    subject: _Subject, point: LinearizationPoint, checks: Checks, counts: tuple[int | None, int | None]
) -> Iterator[Report]:
    """Yield the report of J^T u, and for an operator that of J v."""
    matrix = subject.at(point.theta)
    operator = _is_operator(matrix)
    if not operator or _has_adjoint(matrix, point.outputs.size):
        claim = TransposedClaim(point, Product(subject.vjp, "rmatvec" if operator else "jac.T @ u", "cotangent"))
        yield report_of_claim(claim, checks, counts[1])
    if operator:
        yield report_of(point, Product(subject.jvp, "matvec", "tangent"), checks, "", *counts)


def _in_entries(report: Report, subject: _Subject, point: LinearizationPoint) -> Report:
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
        findings=(*known, *(replace(f, block=JAC if f.block == X else f.block) for f in others)),
        coverage=checked / size,
    )


def _columns(report: Report, point: LinearizationPoint) -> list[int]:
    """Return the columns whose entries are looked at one by one."""
    wrong = [int(c.index[0]) for c in report.wrong]
    return (wrong or list(range(point.theta.size)))[:COLUMNS]


def _entries(
    report: Report, subject: _Subject, point: LinearizationPoint, columns: list[int]
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
            coordinate = Coordinate(JAC, place, float(claimed[i]), float(measured[i]), float(uncertainty[i]))
            found.append((float(error[i]), coordinate, _stored(matrix, place)))
    for _, coordinate, stored in sorted(found, key=lambda one: -one[0]):
        yield coordinate, stored


def _column(subject: _Subject, point: LinearizationPoint, j: int, step: float) -> tuple[FloatArray, Any, FloatArray]:
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


def _transposed(subject: _Subject, point: LinearizationPoint) -> Finding | None:
    """Return a finding where the transposed matrix agrees along a random direction, and the matrix does not."""
    size = point.theta.size
    if point.outputs.size != size or size == 1:
        return None
    v = bounded(0, TANGENT + KEY, 0, size)
    h = STEP * (float(np.abs(point.theta).max()) or 1.0)
    try:
        measured = (point.at(point.theta + h * v) - point.at(point.theta - h * v)) / (2 * h)
        turned = np.asarray(subject.vjp({X: point.theta}, v)[X], dtype=np.float64)
    except Exception:  # what can't be had says nothing
        return None
    if not np.linalg.norm(turned - measured) <= math.sqrt(SMALL) * np.linalg.norm(measured):
        return None
    message = "jac is the transposed Jacobian: jac[i, j] must be the derivative of output i by x[j]. Return jac.T."
    return Finding(Kind.TRANSPOSE, JAC, message, {"blocks": [JAC]})


def _pair(fun: Any, jac: Any) -> tuple[Callable[..., Any], Any]:
    """Return the function and its Jacobian."""
    if not callable(fun):
        raise InputError(f"fun={fun!r} (type={type(fun).__name__}) is not callable: pass the function.")
    if jac is None or jac is False or isinstance(jac, str):
        raise InputError(
            f"jac={jac!r}: pass a function that returns the matrix, the matrix at x0, or True where fun returns "
            "(values, matrix)."
        )
    if jac is True:
        return (lambda *given: _two(fun(*given))[0]), (lambda *given: _two(fun(*given))[1])
    return fun, jac


def _two(found: Any) -> Any:
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise InputError(f"jac=True: fun must return (values, matrix), and returned one {type(found).__name__}.")
    return found


def _vector(value: Any, name: str, of: str = "") -> FloatArray:
    """Return a vector of floats."""
    array = np.asarray(value)
    if array.ndim == 0 and of:
        array = array[None]
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not array.size:
        raise InputError(
            f"{name} (type={type(value).__name__}, shape={array.shape}, dtype={array.dtype}) must be a vector of real "
            "numbers. For trees of arrays, and outputs of any shape: check_vjp."
        )
    return array.astype(array.dtype if array.dtype.kind == "f" else np.float64)


def _matrix(found: Any, rows: int = 0, columns: int = 0) -> Any:
    """Return a matrix whose products can be asked; of the right shape, where that is given."""
    sparse = hasattr(found, "tocsr")
    if not sparse and not _is_operator(found):
        found = np.atleast_2d(np.asarray(found))
        if found.dtype.kind not in "fiu":
            raise InputError(f"jac(x0) has dtype {found.dtype}: it must be a matrix of real numbers.")
    found = found.tocsr() if sparse else found
    if rows and tuple(found.shape) != (rows, columns):
        hint = " It seems to be transposed: return jac.T." if tuple(found.shape) == (columns, rows) else ""
        raise InputError(
            f"jac(x0) has shape {tuple(found.shape)}, and there are {rows} outputs and {columns} entries of x: it must "
            f"be ({rows}, {columns}).{hint}"
        )
    return found


def _is_operator(matrix: Any) -> bool:
    return hasattr(matrix, "matvec") and hasattr(matrix, "shape")


def _has_adjoint(operator: Any, rows: int) -> bool:
    try:
        operator.rmatvec(np.zeros(rows))
    except NotImplementedError:
        return False
    except Exception:  # the check says it
        return True
    return True


def _stored(matrix: Any, place: tuple[int, int]) -> bool:
    """Say whether an entry is in the pattern; of what has none, yes."""
    if not hasattr(matrix, "indptr"):
        return True
    i, j = place
    return bool(np.any(matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]] == j))


def _of_its_precision(product: Any, matrix: Any) -> FloatArray:
    dtype = np.dtype(getattr(matrix, "dtype", None) or np.float64)
    kept = dtype if dtype.kind == "f" and dtype.itemsize < 8 else np.float64
    return np.asarray(product).ravel().astype(kept)
