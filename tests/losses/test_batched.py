from __future__ import annotations

import math

import numpy as np
import pytest

import fastcheck
from fastcheck.losses import BatchedLoss, PythonLoss, evaluator_for
from fastcheck.losses.batched import LARGEST
from fastcheck.parameters import Parameters

RNG = np.random.default_rng(0)
PARAMS = {"W": np.asfortranarray(RNG.standard_normal((3, 4))), "b": RNG.standard_normal(4), "s": np.array(0.7)}
X = RNG.standard_normal((5, 3))


def single(params, X):
    return float(np.sum(np.tanh(X @ params["W"] + params["b"]) ** 2) * params["s"])


def stacked(params, X):
    hidden = np.tanh(X @ params["W"] + params["b"][:, None, :])
    return np.sum(hidden**2, axis=(1, 2)) * params["s"]


def gradient(params, X):
    hidden = np.tanh(X @ params["W"] + params["b"])
    back = 2 * hidden * (1 - hidden**2) * params["s"]
    return {"W": X.T @ back, "b": back.sum(axis=0), "s": np.sum(hidden**2)}


def of(loss, params=PARAMS, args=(X,)):
    layout = Parameters.of(params)
    return evaluator_for(loss, layout, layout.flatten(params), args)


def test_it_is_the_plain_loss_of_each_set():
    plain, fast = of(single), of(fastcheck.batched(stacked))
    assert isinstance(fast, BatchedLoss)
    coordinates, steps = RNG.permutation(17), RNG.uniform(1e-4, 1e-1, 17)
    for _ in range(4):  # K grows from call to call
        values = fast.on_grid(coordinates, steps, (1.0, -1.0))
        np.testing.assert_allclose(values, plain.on_grid(coordinates, steps, (1.0, -1.0)), rtol=1e-13)
    direction, t = RNG.standard_normal(5), np.array([0.1, -0.2, 0.3])
    np.testing.assert_allclose(fast.along(2, direction, t), plain.along(2, direction, t), rtol=1e-13)
    assert fast.untouched


def test_check_passes_and_finds():
    assert fastcheck.check(fastcheck.batched(stacked), gradient, PARAMS, args=(X,)).passed
    wrong = gradient(PARAMS, X)
    wrong["W"][1, 2] *= 1.1
    report = fastcheck.check(fastcheck.batched(stacked), wrong, PARAMS, args=(X,))
    assert [(c.block, c.index) for c in report.wrong] == [("W", (1, 2))]


def test_size_is_kept_and_a_decorator_takes_it():
    seen = []

    @fastcheck.batched(size=6)
    def loss(theta):
        seen.append(len(theta))
        return np.sum(theta**2, axis=1)

    assert fastcheck.check(loss, lambda theta: 2 * theta, np.linspace(1, 2, 10)).passed
    assert set(seen) == {6}


def test_size_grows_only_while_it_pays_and_within_memory(monkeypatch):
    clock = iter(np.cumsum([1.0] * 10_000))
    monkeypatch.setattr("fastcheck.losses.batched.time.perf_counter", lambda: next(clock))
    cheap = of(fastcheck.batched(lambda theta: theta.sum(axis=1)), np.ones(4000), ())
    cheap.on_grid(np.arange(4000), np.ones(4000), (1.0, -1.0))  # a call takes a second, however many it evaluates
    assert 512 < cheap.size <= LARGEST
    huge = of(fastcheck.batched(lambda theta: theta.sum(axis=1)), np.ones(1 << 22), ())
    huge.on_grid(np.arange(64), np.ones(64), (1.0, -1.0))
    assert huge.size * huge.theta.nbytes <= 1 << 28


def test_one_that_raises_does_not_take_the_others_with_it():
    def loss(theta):
        if np.any(theta[:, 3] > 1.5):
            raise ValueError("too far")
        return theta.sum(axis=1)

    fast = of(fastcheck.batched(loss, size=4), np.ones(6), ())
    values = fast.on_grid(np.arange(6), np.ones(6), (1.0, -1.0))
    expected = np.tile([7.0, 5.0], (6, 1))
    expected[3, 0] = np.nan
    assert np.array_equal(values, expected, equal_nan=True)
    assert fast.failure == "the loss raised ValueError: too far (test_batched.py, line 84; at a step along theta[3])"


@pytest.mark.parametrize("returned", [1.0, np.ones((4, 1)), np.ones(3), np.ones(4, complex), None])
def test_anything_but_k_numbers_is_refused(returned):
    with pytest.raises(fastcheck.LossError, match=r"shape \(4,\)"):
        fastcheck.check(fastcheck.batched(lambda theta: returned, size=4), np.ones(3), np.ones(3))


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_bad_size_is_refused(size):
    with pytest.raises(fastcheck.InputError, match="size="):
        fastcheck.batched(stacked, size=size)


def test_what_is_not_callable_is_refused():
    with pytest.raises(fastcheck.InputError, match="callable"):
        fastcheck.batched(3.0)


def test_python_values_of_every_kind_and_failures():
    answers = iter([1, np.float32(2), np.array(3.0), math.nan, "four"])
    loss = of(lambda theta: next(answers), np.ones(5), ())
    assert isinstance(loss, PythonLoss)
    values = loss.on_grid(np.arange(5), np.ones(5), (1.0,))[:, 0]
    assert np.array_equal(values, [1, 2, 3, np.nan, np.nan], equal_nan=True)
    assert loss.failure == "the loss returned nan (at a step along theta[3])"


def test_a_python_loss_is_restored_after_ctrl_c():
    def loss(theta):
        if theta[2] != 1:
            raise KeyboardInterrupt
        return 1.0

    python = of(loss, np.ones(4), ())
    with pytest.raises(KeyboardInterrupt):
        python.on_grid(np.arange(4), np.ones(4), (1.0,))
    assert python.untouched
