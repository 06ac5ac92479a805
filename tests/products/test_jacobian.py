"""check_jacobian: dense, sparse and operator Jacobians of a dozen systems, right and with planted bugs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

import fastcheck
from fastcheck.errors import GradientError, InputError, LossError
from fastcheck.judge.verdict import Verdict

N = 12
rng = np.random.default_rng(0)
A, B = rng.normal(size=(9, N)), rng.normal(size=(N, N))
X = rng.uniform(0.3, 1.5, N)


def banded(x):
    J = np.diag(-2 - 3 * x**2)
    J[np.arange(1, N), np.arange(N - 1)] = np.cos(x[:-1])
    J[np.arange(N - 1), np.arange(1, N)] = 2 * x[1:]
    return J


def band(x):
    y = -2 * x - x**3
    y[1:] += np.sin(x[:-1])
    y[:-1] += x[1:] ** 2
    return y


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


SYSTEMS = {
    "rosenbrock": (
        lambda x: np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]),
        lambda x: np.array([[-20 * x[0], 10.0, *np.zeros(N - 2)], [-1.0, 0.0, *np.zeros(N - 2)]]),
    ),
    "linear": (lambda x: A @ x, lambda x: A),
    "tanh": (lambda x: np.tanh(A @ x / 4), lambda x: (1 - np.tanh(A @ x / 4) ** 2)[:, None] * A / 4),
    "square": (lambda x: (B @ x) ** 2, lambda x: 2 * (B @ x)[:, None] * B),
    "band": (band, banded),
    "softmax": (softmax, lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x))),
    "diagonal": (lambda x: x**3, lambda x: np.diag(3 * x**2)),
    "exponentials": (
        lambda x: x[0] * np.exp(-x[1] * np.arange(1, 8)) + x[2],
        lambda x: np.c_[
            np.exp(-x[1] * np.arange(1, 8)),
            -x[0] * np.arange(1, 8) * np.exp(-x[1] * np.arange(1, 8)),
            np.ones(7),
            np.zeros((7, N - 3)),
        ],
    ),
    "one": (lambda x: np.array([np.log(x).sum()]), lambda x: 1 / x[None]),
    "scalar": (lambda x: float((x**2).sum()), lambda x: 2 * x),
    "cumulated": (lambda x: np.cumsum(np.sin(x)), lambda x: np.tril(np.ones((N, N))) * np.cos(x)),
    "pairs": (
        lambda x: x[:-1] * x[1:],
        lambda x: np.eye(N - 1, N) * x[1:, None] + np.eye(N - 1, N, 1) * x[:-1, None],
    ),
}


def operator(matrix, forward=1.0, backward=1.0):
    return LinearOperator(
        matrix.shape, matvec=lambda v: forward * (matrix @ v), rmatvec=lambda u: backward * (matrix.T @ u), dtype=float
    )


KINDS = {
    "array": np.asarray,
    "csr": sparse.csr_array,
    "coo": sparse.coo_array,
    "csc_matrix": sparse.csc_matrix,
    "operator": operator,
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("kind", KINDS)
def test_right_jacobians(name, kind):
    fun, jac = SYSTEMS[name]
    made = lambda x: KINDS[kind](np.atleast_2d(jac(x)))  # noqa: E731
    for mode in ("full", "screen"):
        report = fastcheck.check_jacobian(fun, made, X, mode=mode)
        assert report.verdict is Verdict.CORRECT, str(report)
        assert report.blocks["jac"].shape == np.atleast_2d(jac(X)).shape
    assert fastcheck.check_jacobian(fun, made(X), X).verdict is Verdict.CORRECT  # the matrix itself


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("kind", ["array", "csr", "operator"])
@pytest.mark.parametrize("planted", ["entry", "missing", "sign", "factor"])
def test_planted_errors(name, kind, planted):
    fun, jac = SYSTEMS[name]
    where = np.argwhere(np.atleast_2d(jac(X)))
    i, j = (int(k) for k in where[len(where) // 2])

    def wrong(x):
        J = np.array(np.atleast_2d(jac(x)), dtype=float)
        if planted == "entry":
            J[i, j] *= 1.5
        elif planted == "missing":
            J[i, j] = 0
        elif planted == "sign":
            J[i] *= -1
        else:
            J *= 1.5
        return KINDS[kind](J)

    report = fastcheck.check_jacobian(fun, wrong, X)
    assert report.verdict.refuted, str(report)
    if planted in ("entry", "missing"):
        assert [c.name for c in report.wrong] == [f"jac[{i}, {j}]"]
        assert report.findings[0].kind == "entries"
        assert report.findings[0].evidence["entries"] == [[i, j]]
        sparse_one = planted == "missing" and kind == "csr"
        assert report.findings[0].evidence["missing"] == ([[i, j]] if sparse_one else [])
        assert ("The sparsity pattern lacks" in report.findings[0].message) == sparse_one
    else:
        assert all(c.index[0] == i or planted == "factor" for c in report.wrong)
    with pytest.raises(GradientError):
        fastcheck.check_jacobian(fun, wrong, X, throw=True)


@pytest.mark.parametrize("name", ["square", "band", "cumulated"])
def test_a_transposed_jacobian_is_named(name):
    fun, jac = SYSTEMS[name]
    for kind in ("array", "csr"):
        report = fastcheck.check_jacobian(fun, lambda x, kind=kind: KINDS[kind](jac(x).T), X)
        assert report.verdict is Verdict.WRONG
        assert report.findings[0].kind == "transpose"
    fun, jac = SYSTEMS["linear"]
    with pytest.raises(InputError, match=r"shape \(12, 9\).* must be \(9, 12\).* It seems to be transposed"):
        fastcheck.check_jacobian(fun, lambda x: jac(x).T, X)


@pytest.mark.parametrize(("forward", "backward", "named"), [(1.5, 1, "matvec"), (1, -1, "rmatvec"), (1, 0, "rmatvec")])
def test_both_products_of_an_operator_are_checked(forward, backward, named):
    for name in ("linear", "square", "band", "tanh"):
        fun, jac = SYSTEMS[name]
        report = fastcheck.check_jacobian(fun, lambda x, jac=jac: operator(jac(x), forward, backward), X)
        assert report.verdict is Verdict.WRONG
        assert any(finding.message.startswith(f"{named} is wrong") for finding in report.findings), str(report)
    alone = lambda x: LinearOperator((N, N), matvec=lambda v: forward * (banded(x) @ v))  # noqa: E731
    report = fastcheck.check_jacobian(band, alone, X)  # without rmatvec
    assert report.passed is (forward == 1)


def test_large_sparse_systems():
    n = 3000
    x = np.random.default_rng(1).normal(size=n)

    def fun(x):
        return np.sin(x) + np.roll(x, 3) ** 2

    def jac(x, without=()):
        rows, columns = np.arange(n), (np.arange(n) - 3) % n
        J = sparse.coo_array((np.r_[np.cos(x), 2 * x[columns]], (np.r_[rows, rows], np.r_[rows, columns]))).tolil()
        for place in without:
            J[place] = 0
        return J.tocsr()

    assert fastcheck.check_jacobian(fun, jac, x, mode="screen").verdict is Verdict.CORRECT
    for places in ([(17, 14)], [(17, 14), (2000, 2000)]):
        report = fastcheck.check_jacobian(fun, lambda x, places=places: jac(x, places), x, mode="screen")
        assert report.verdict is Verdict.WRONG
        assert sorted(report.findings[0].evidence["missing"]) == sorted(map(list, places))
        assert report.evaluations < n


@pytest.mark.parametrize("kind", ["array", "csr"])
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_an_entry_of_a_small_row_counts_as_one_of_a_large_one(kind, mode):
    """Rates of a stiff system: rows of 1e-9 to 1e9."""
    scale = 10.0 ** np.linspace(-9, 9, N)

    def fun(x):
        return scale * band(x)

    def jac(x, without=None):
        J = scale[:, None] * banded(x)
        if without is not None:
            J[without] = 0
        return KINDS[kind](J)

    assert fastcheck.check_jacobian(fun, jac, X, mode=mode).verdict is Verdict.CORRECT
    for place in ((0, 1), (5, 4), (N - 1, N - 2)):
        report = fastcheck.check_jacobian(fun, lambda x, place=place: jac(x, place), X, mode=mode)
        assert report.verdict is Verdict.WRONG, str(report)
        assert [c.index for c in report.wrong] == [place]
        assert abs(report.wrong[0].numerical / jac(X).toarray()[place] - 1 if kind == "csr" else 0) < 1e-6


def test_rows_that_drown_in_rounding_are_named():
    report = fastcheck.check_jacobian(lambda x: band(x) * 1e-9 ** (np.arange(N) == 3) + 1e3, banded_with(3, 1e-9), X)
    assert report.passed
    assert report.findings[-1].kind == "silent_outputs"
    assert report.findings[-1].evidence["outputs"] == ["output[3]"]


def banded_with(row, factor):
    def jac(x):
        J = banded(x)
        J[row] *= factor
        return J

    return jac


def test_bounds_args_and_pairs():
    outside = []

    def fun(x, scale):
        outside.extend(x[x < 0])
        return scale * np.sqrt(x + 1) * x[0]

    def jac(x, scale):
        J = np.diag(scale * x[0] / (2 * np.sqrt(x + 1)))
        J[:, 0] += scale * np.sqrt(x + 1)
        return J

    x = np.array([0.0, 0.0, 1.0])
    report = fastcheck.check_jacobian(fun, jac, x, args=(2.0,), bounds=(0, np.inf))
    assert report.verdict is Verdict.CORRECT, str(report)
    assert not outside
    assert report.settings["call"] == "check_jacobian(fun, jac, x0, bounds=bounds, args=args"
    assert fastcheck.check_jacobian(lambda x: (fun(x, 1), jac(x, 1)), True, [0.5, 1.0]).passed
    assert not fastcheck.check_jacobian(lambda x: (fun(x, 1), 2 * jac(x, 1)), True, [0.5, 1.0]).passed


def test_other_numbers():
    assert fastcheck.check_jacobian(lambda x: [x[0] * 2, x[1] * 3], np.array([[2, 0], [0, 3]]), [1, 2]).passed
    x = X.astype(np.float32)
    report = fastcheck.check_jacobian(lambda x: np.tanh(A @ x / 4), lambda x: SYSTEMS["tanh"][1](x).astype("f4"), x)
    assert report.verdict in (Verdict.CORRECT, Verdict.ACCEPTABLE), str(report)


@pytest.mark.parametrize(
    ("fun", "jac", "x0", "error", "message"),
    [
        (3, lambda x: x, [1.0], InputError, "fun=3 .* is not callable"),
        (lambda x: x, None, [1.0], InputError, "jac=None: pass a function"),
        (lambda x: x, "2-point", [1.0], InputError, "jac='2-point': pass a function"),
        (lambda x: x, True, [1.0], InputError, r"jac=True: fun must return \(values, matrix\)"),
        (lambda x: x, np.eye(2), [1.0], InputError, r"jac\(x0\) has shape \(2, 2\).* must be \(1, 1\)"),
        (lambda x: x, np.eye(2), {"x": 1.0}, InputError, "x0 .* must be a vector of real numbers"),
        (lambda x: x, np.eye(2), [[1.0]], InputError, "x0 .* must be a vector of real numbers"),
        (lambda x: x, np.eye(2), [1j], InputError, "x0 .* must be a vector of real numbers"),
        (lambda x: x[None], np.eye(1), [1.0], InputError, r"fun\(x0\) .* must be a vector"),
        (lambda x: x, lambda x: np.array([["a"]]), [1.0], InputError, "it must be a matrix of real numbers"),
        (lambda x: x, lambda x: 1 / 0, [1.0], LossError, "jac raised ZeroDivisionError at x0"),
        (lambda x: x / 0, np.eye(1), [1.0], LossError, "not finite|ZeroDivision"),
        (lambda x: x, np.array([[np.nan]]), [1.0], LossError, "NaN|finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(fun, jac, x0, error, message):
    with pytest.raises(error, match=message):
        fastcheck.check_jacobian(fun, jac, x0)
