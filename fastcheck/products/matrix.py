"""A Jacobian as optimisers take it, a matrix at a point: dense, sparse, or only its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.domain import Box, Continued
from fastcheck.errors import InputError, LossError, said

__all__ = ["System", "X", "has_adjoint", "is_operator", "is_stored", "vector"]

X = "x"
LEAST = 1e-4  # of an output: a row is scaled as if it were as large, since the output's rounding is scaled with it
QUIET = 1e-3  # of that scale: errors of the whole row are too small to be seen beside the others


@dataclass(frozen=True, eq=False)
class System:
    """A function of a vector and its Jacobian; the last matrix is kept, as products ask for the same one again.

    Attributes
    ----------
    fun, jac : callable
        ``fun(x, *args)``, ``jac(x, *args)``; or the matrix.
    args : tuple
    box : Box or None
        Where fun may be evaluated.
    scale : float64, shape (m,)
        What outputs and rows are divided by, so that an entry of a small row counts as one of a large one does.
    quiet : tuple of int
        Rows that are too small beside their outputs for that.
    """

    fun: Callable[..., Any]
    jac: Any
    args: tuple[Any, ...]
    box: Box | None
    scale: FloatArray
    quiet: tuple[int, ...] = ()
    _last: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fun: Any, jac: Any, args: tuple[Any, ...], x: FloatArray, box: Box | None) -> System:
        """Call both once, and choose the scales."""
        function, matrix = _pair(fun, jac)
        plain = cls(function, matrix, args, box, np.ones(1))
        y = plain.outputs(x)
        found = plain.at(x, len(y))
        norms = np.zeros(len(y)) if is_operator(found) else _row_norms(found)
        scale = np.maximum(norms, LEAST * np.abs(y))
        usable = np.isfinite(scale) & (scale > 0) & (norms > 0)
        power = np.round(np.log2(np.where(usable, scale, 1.0)))
        quiet = np.flatnonzero(usable & (norms < QUIET * scale))
        return replace(plain, scale=np.exp2(power), quiet=tuple(int(i) for i in quiet))  # powers of two: exact

    def outputs(self, x: Any) -> Any:
        """Return the m numbers of a vector x."""
        return vector(self.fun(x, *self.args), "fun(x0)", of="fun")

    def function(self, tree: Any) -> Any:
        """Return them scaled, of a tree {"x": x}; beyond the bounds they are continued."""
        known = self.outputs if self.box is None else Continued(self.outputs, self.box)
        return known(tree[X]) / self.scale

    def at(self, x: FloatArray, rows: int = 0) -> Any:
        """Return the matrix at x; validated where the number of rows is given."""
        if rows or self._last.get("x") is None or not np.array_equal(self._last["x"], x):
            given = np.array(x)
            try:
                found = self.jac(given, *self.args) if callable(self.jac) and not is_operator(self.jac) else self.jac
            except Exception as error:
                raise LossError(f"jac raised {said(error, ' at x0')}.") from error
            self._last.update(x=np.array(x), matrix=_matrix(found, rows, len(x)) if rows else _matrix(found))
        return self._last["matrix"]

    def vjp(self, tree: Any, cotangent: Any) -> Any:
        """Return J^T u of the scaled outputs."""
        matrix, u = self.at(tree[X]), np.asarray(cotangent, dtype=np.float64) / self.scale
        return {X: _of_its_precision(matrix.rmatvec(u) if is_operator(matrix) else matrix.T @ u, matrix)}

    def jvp(self, tree: Any, tangent: Any) -> Any:
        """Return J v, scaled."""
        matrix, v = self.at(tree[X]), np.asarray(tangent[X], dtype=np.float64)
        return _of_its_precision(matrix.matvec(v) if is_operator(matrix) else matrix @ v, matrix) / self.scale


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


def vector(value: Any, name: str, of: str = "") -> FloatArray:
    """Return a vector of floats.

    Raises
    ------
    InputError
        It is none.
    """
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
    if not sparse and not is_operator(found):
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


def is_operator(matrix: Any) -> bool:
    """Say whether only products can be asked."""
    return hasattr(matrix, "matvec") and hasattr(matrix, "shape")


def has_adjoint(operator: Any, rows: int) -> bool:
    """Say whether those with the transposed matrix can be."""
    try:
        operator.rmatvec(np.zeros(rows))
    except NotImplementedError:
        return False
    except Exception:  # the check says it
        return True
    return True


def is_stored(matrix: Any, place: tuple[int, int]) -> bool:
    """Say whether an entry is in the pattern; of what has none, yes."""
    if not hasattr(matrix, "indptr"):
        return True
    i, j = place
    return bool(np.any(matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]] == j))


def _of_its_precision(product: Any, matrix: Any) -> FloatArray:
    dtype = np.dtype(getattr(matrix, "dtype", None) or np.float64)
    kept = dtype if dtype.kind == "f" and dtype.itemsize < 8 else np.float64
    return np.asarray(product).ravel().astype(kept)


def _row_norms(matrix: Any) -> FloatArray:
    if hasattr(matrix, "tocsr"):
        return np.sqrt(np.asarray(abs(matrix).power(2).sum(axis=1), dtype=np.float64).ravel())
    return np.asarray(np.linalg.norm(matrix.astype(np.float64), axis=1))
