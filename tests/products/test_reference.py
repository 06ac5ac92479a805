"""check_vjp(reference=): kernels of float32 and float16 beside plain NumPy, right and with planted bugs."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import InputError, LossError
from fastcheck.judge.verdict import Verdict


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-2)


def normed_back(x, u):
    s = np.sqrt(x.var(-1, keepdims=True) + 1e-2)
    y = (x - x.mean(-1, keepdims=True)) / s
    return (u - u.mean(-1, keepdims=True) - y * (u * y).mean(-1, keepdims=True)) / s


def shifted_back(u):
    found = np.zeros((u.shape[0], u.shape[1] + 2), dtype=u.dtype)
    for k, c in enumerate((0.25, 0.5, 0.25)):
        found[:, k : k + u.shape[1]] += found.dtype.type(c) * u
    return found


KERNELS = {
    "tanh": (lambda p: np.tanh(p["x"]), lambda p, u: {"x": u * (1 - np.tanh(p["x"]) ** 2)}),
    "swish": (
        lambda p: p["x"] * sigmoid(p["x"]),
        lambda p, u: {"x": u * sigmoid(p["x"]) * (1 + p["x"] * (1 - sigmoid(p["x"])))},
    ),
    "square": (lambda p: p["x"] ** 2, lambda p, u: {"x": 2 * p["x"] * u}),
    "dense": (lambda p: p["x"] @ p["w"], lambda p, u: {"x": u @ p["w"].T, "w": p["x"].T @ u}),
    "scaled": (lambda p: p["x"] * p["w"][:, 0], lambda p, u: {"x": u * p["w"][:, 0], "w": column(p, u * p["x"])}),
    "softmax": (
        lambda p: softmax(p["x"]),
        lambda p, u: {"x": softmax(p["x"]) * (u - (u * softmax(p["x"])).sum(-1, keepdims=True))},
    ),
    "layer norm": (lambda p: normed(p["x"]), lambda p, u: {"x": normed_back(p["x"], u)}),
    "row sums": (lambda p: p["x"].sum(-1), lambda p, u: {"x": np.repeat(u[:, None], p["x"].shape[1], 1)}),
    "mean": (lambda p: np.sin(p["x"]).mean(0), lambda p, u: {"x": np.cos(p["x"]) * u / len(p["x"])}),
    "stencil": (
        lambda p: 0.25 * p["x"][:, :-2] + 0.5 * p["x"][:, 1:-1] + 0.25 * p["x"][:, 2:],
        lambda p, u: {"x": shifted_back(u)},
    ),
    "two outputs": (
        lambda p: {"y": np.exp(p["x"] / 4), "z": p["x"][0] * p["x"][1]},
        lambda p, u: {"x": u["y"] * np.exp(p["x"] / 4) / 4 + rows(p, u["z"])},
    ),
    "softplus": (lambda p: np.logaddexp(0, p["x"]), lambda p, u: {"x": u * sigmoid(p["x"])}),
}


def column(p, g):
    found = np.zeros_like(p["w"])
    found[:, 0] = g.sum(0)
    return found


def rows(p, u):
    found = np.zeros_like(p["x"])
    found[0], found[1] = u * p["x"][1], u * p["x"][0]
    return found


def inputs(dtype, name):
    rng = np.random.default_rng(1)
    found = {"x": rng.normal(size=(12, 9)).astype(dtype), "w": rng.normal(size=(9, 5)).astype(dtype)}
    return found if name in ("dense", "scaled") else {"x": found["x"]}


def low(kernel, dtype):
    """Return a kernel that takes its own precision alone, as one that is compiled for it does."""

    def alone(p, *vectors):
        assert all(x.dtype == dtype for x in p.values())
        found = kernel(p, *vectors)
        cast = (lambda y: y.astype(dtype)) if not isinstance(found, dict) else None
        return cast(found) if cast else {name: y.astype(dtype) for name, y in found.items()}

    return alone


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("pair", [True, False])
def test_right_and_planted_kernels(name, dtype, pair):
    function, vjp = KERNELS[name]
    p = inputs(dtype, name)
    reference = (function, vjp) if pair else function
    if not pair and dtype is np.float16:
        with pytest.raises(InputError, match=r"inputs are of float16.*reference=\(function, vjp\)"):
            fastcheck.check_vjp(low(function, dtype), low(vjp, dtype), p, reference=reference)
        return
    report = fastcheck.check_vjp(low(function, dtype), low(vjp, dtype), p, reference=reference)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert report.findings[-1].kind == "reference"
    assert report.settings["call"] == "check_vjp(function, vjp, inputs, reference=reference"

    def entry(p, u):
        g = {key: np.array(value) for key, value in vjp(p, u).items()}
        worst = np.unravel_index(np.abs(g["x"]).argmax(), g["x"].shape)
        g["x"][worst] = 0
        return g

    def factor(p, u):
        return {key: value * dtype(1.5) for key, value in vjp(p, u).items()}

    def sign(p, u):
        return {key: -value for key, value in vjp(p, u).items()}

    for planted in (entry, factor, sign):
        report = fastcheck.check_vjp(low(function, dtype), low(planted, dtype), p, reference=reference)
        assert report.verdict is Verdict.WRONG, str(report)
        assert report.blocks["x"].verdict is Verdict.WRONG
    wrong = low(lambda p: {k: 1.1 * y for k, y in function(p).items()}, dtype)
    wrong = wrong if name == "two outputs" else low(lambda p: dtype(1.1) * function(p), dtype)
    report = fastcheck.check_vjp(wrong, low(vjp, dtype), p, reference=reference)
    assert report.verdict is Verdict.WRONG, str(report)
    assert report.findings[0].kind == "kernel_factor"
    assert "output" in report.findings[0].message


def test_a_wrong_reference_is_said():
    function, vjp = KERNELS["swish"]
    p = inputs(np.float32, "swish")
    report = fastcheck.check_vjp(function, vjp, p, reference=(function, lambda p, u: {"x": 2 * u * p["x"]}))
    assert report.verdict is Verdict.WRONG
    assert "The reference's own" in report.findings[0].message


def test_digits_lost_all_over_are_told():
    function, vjp = KERNELS["layer norm"]
    p = inputs(np.float32, "layer norm")

    def coarse(p, u):
        return {"x": vjp({"x": p["x"].astype(np.float16)}, u.astype(np.float16))["x"].astype(np.float32)}

    report = fastcheck.check_vjp(function, coarse, p, reference=(function, vjp))
    assert report.verdict.refuted
    assert {f.kind for f in report.findings} & {"kernel_rounding", "kernel_entries"}


def test_bad_input():
    function, vjp = KERNELS["square"]
    p = inputs(np.float32, "square")
    for reference, error, message in (
        (3, InputError, "reference=3 .* must be a function like the kernel"),
        ((function, 3), InputError, "must be a function like the kernel"),
        ((function, vjp, vjp), InputError, "must be a function like the kernel"),
        (lambda p: p["x"][:, :2], InputError, "must be the same function"),
    ):
        with pytest.raises(error, match=message):
            fastcheck.check_vjp(function, vjp, p, reference=reference)
    with pytest.raises(InputError, match="the inputs are of float64"):
        fastcheck.check_vjp(function, vjp, inputs(np.float64, "square"), reference=function)
    large = {"x": np.zeros((100, 100), dtype=np.float32)}
    with pytest.raises(InputError, match=r"there are 10,000 inputs.*reference=\(function, vjp\)"):
        fastcheck.check_vjp(function, vjp, large, reference=function)
    with pytest.raises(LossError, match="the kernel raised ZeroDivisionError"):
        fastcheck.check_vjp(lambda p: 1 / 0, vjp, p, reference=function)
    with pytest.raises(InputError, match=r"vjp=3 .* is not callable"):
        fastcheck.check_vjp(function, 3, p, reference=function)
