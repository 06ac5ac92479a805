from __future__ import annotations

import math
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

import fastcheck
from fastcheck.losses import JittedLoss, PythonLoss, evaluator_for
from fastcheck.parameters import Parameters
from tests.zoo.compiled import compiled_course_net, compiled_mlp


@njit
def quadratic(theta, a, n):
    return 0.5 * n * np.sum(a * theta**2)


@njit
def fussy(theta, limit):
    if theta[2] > limit:
        raise ValueError("too far")
    if theta[1] > limit:
        return math.inf
    return theta.sum()


@njit
def of_matrix(W):
    total = 0.0
    for j in range(W.shape[1]):
        total += (j + 1) * W[0, j] ** 2
    return total


@njit
def of_pair(pair):
    return (pair[0] ** 2).sum() + 3 * pair[1].sum()


class Pair(NamedTuple):
    W: np.ndarray
    b: np.ndarray


def of(loss, params, args=()):
    layout = Parameters.of(params)
    return evaluator_for(loss, layout, layout.flatten(params), args)


@pytest.mark.parametrize("net", [compiled_course_net(), compiled_mlp((6, 5, 3), batch=7)], ids=lambda net: net.name)
def test_a_compiled_loss_gives_the_numbers_of_its_python_function(net):
    assert isinstance(of(net.loss, net.params, net.args), JittedLoss)
    fast = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
    slow = fastcheck.check(net.loss.py_func, net.gradient, net.params, args=net.args)
    assert fast.passed
    np.testing.assert_allclose(fast.numerical, slow.numerical, rtol=1e-6, atol=1e-9)


def test_a_wrong_coordinate_is_found():
    theta, a = np.linspace(0.5, 2, 9), np.linspace(1, 3, 9)
    gradient = 2 * a * theta
    gradient[4] *= 1.01
    report = fastcheck.check(quadratic, gradient, theta, args=(a, 2))
    assert [coordinate.index for coordinate in report.wrong] == [(4,)]


def test_a_tree_is_flattened_in_order():
    params = {"b": np.array([1.0, 2.0]), "W": np.array([[3.0, 4.0]])}
    a = np.array([1.0, 10.0, 100.0, 1000.0])
    gradient = {"b": a[:2] * params["b"], "W": a[2:].reshape(1, 2) * params["W"]}
    report = fastcheck.check(quadratic, lambda tree, a, n: gradient, params, args=(a, 1.0))
    assert report.passed
    assert list(report.blocks) == ["b", "W"]


def test_an_array_is_given_in_its_own_shape_and_a_tuple_where_nothing_else_compiles():
    W = np.arange(1.0, 7.0).reshape(2, 3)
    gradient = np.zeros((2, 3))
    gradient[0] = 2 * np.arange(1, 4) * W[0]
    assert np.allclose(fastcheck.numerical_gradient(of_matrix, W), gradient, atol=1e-8)
    numerical = fastcheck.numerical_gradient(of_pair, Pair(W, np.ones(2)))
    assert np.allclose(numerical.W, 2 * W)
    assert np.allclose(numerical.b, 3)


def test_what_raises_or_is_infinite_is_nan_and_named_and_the_rest_is_kept():
    loss = of(fussy, np.ones(5), (1.5,))
    values = loss.on_grid(np.arange(5), np.full(5, 1.0), (1.0, -1.0))
    expected = np.tile([6.0, 4.0], (5, 1))
    expected[1:3, 0] = np.nan
    assert np.array_equal(values, expected, equal_nan=True)
    assert loss.failure == "the loss raised ValueError: too far (test_jitted.py, line 26; at a step along theta[2])"
    assert loss.evaluations == 10
    assert loss.untouched


def test_an_infinite_value_is_named():
    loss = of(fussy, np.ones(5), (1.5,))
    loss.on_grid(np.array([0, 1]), np.full(2, 1.0), (1.0, -1.0))
    assert loss.failure == "the loss returned inf (at a step along theta[1])"


def test_along_survives_what_raises():
    loss = of(fussy, np.ones(5), (1.5,))
    values = loss.along(0, np.ones(5), np.array([0.1, 1.0, -0.1]))
    assert np.isnan(values[1])
    assert np.allclose(values[[0, 2]], [5.5, 4.5])
    assert loss.failure.endswith("(step at along a direction in theta)") or "along" in loss.failure
    assert loss.untouched


def test_a_loss_that_raises_at_theta_is_an_error_with_its_reason():
    with pytest.raises(fastcheck.LossError, match="too far"):
        fastcheck.check(fussy, np.ones(5), np.full(5, 2.0), args=(1.5,))


@pytest.mark.parametrize("args", [([1.0, 2.0], 2), (object(), 2)], ids=["list", "object"])
def test_an_argument_that_numba_cannot_take_is_named(args):
    with pytest.raises(fastcheck.InputError, match=r"args\[0\]"):
        fastcheck.check(quadratic, np.ones(2), np.ones(2), args=args)


def test_a_loss_of_other_arguments_is_refused_with_the_remedy():
    with pytest.raises(fastcheck.InputError, match="py_func"):
        fastcheck.check(quadratic, np.ones(2), np.ones(2), args=(1.0,))


def test_a_python_loss_is_not_taken_for_a_compiled_one_and_numba_is_not_imported():
    assert isinstance(of(lambda theta: theta.sum(), np.ones(2)), PythonLoss)
    code = (
        "import sys, numpy as np, fastcheck;"
        "assert fastcheck.check(lambda t: float(t @ t), lambda t: 2 * t, np.ones(3)).passed;"
        "assert 'numba' not in sys.modules, 'numba was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
