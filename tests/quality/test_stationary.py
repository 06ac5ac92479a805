"""At a fit without residuals gradient and differences are rounding: no verdict may rest on that."""

from __future__ import annotations

import numpy as np
import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict

MODES = ("full", "screen")
AWAY = (1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13, 0.0)  # residuals, relative to what is fitted


def net(residual, rng):
    """Two layers of tanh, half the mean of squares."""
    x, y = rng.normal(size=(8, 4)), rng.normal(size=(8, 3))
    p = {"W": rng.normal(size=(6, 4)), "b": rng.normal(size=6), "V": rng.normal(size=(3, 6)), "c": rng.normal(size=3)}

    def forward(p):
        h = np.tanh(x @ p["W"].T + p["b"])
        return h, h @ p["V"].T + p["c"]

    y = forward(p)[1] + residual * y

    def loss(p):
        return float(0.5 * np.mean(np.sum((forward(p)[1] - y) ** 2, axis=1)))

    def gradient(p):
        h, z = forward(p)
        d = (z - y) / len(x)
        e = d @ p["V"] * (1 - h**2)
        return {"W": e.T @ x, "b": e.sum(axis=0), "V": d.T @ h, "c": d.sum(axis=0)}

    return loss, gradient, p


def decay(residual, rng):
    """Four parameters of unlike sizes, in one vector, as a solver wants them."""
    t = np.linspace(0.1, 10, 40)
    p = np.array([1e3, 0.1, 1e-3, 1e6]) * rng.uniform(0.5, 2, 4)

    def model(p):
        return p[0] * np.exp(-p[1] * t) + p[2] * t * t + 1e-6 * p[3] * t

    y = model(p) * (1 + residual * rng.normal(size=t.size))

    def loss(p):
        with np.errstate(over="ignore"):
            return float(np.sum((model(p) - y) ** 2))

    def gradient(p):
        r, e = 2 * (model(p) - y), np.exp(-p[1] * t)
        return np.array([r @ e, -r @ (p[0] * t * e), r @ (t * t), r @ (1e-6 * t)])

    return loss, gradient, p


def lines(residual, rng):
    """The minimum of linear least squares, with residuals of size one: the gradient alone is rounding."""
    x, y = rng.normal(size=(50, 8)), rng.normal(size=50)
    p = np.linalg.lstsq(x, y, rcond=None)[0] * (1 + residual * rng.normal(size=8))
    return lambda p: float(np.mean((x @ p - y) ** 2)), lambda p: 2 * x.T @ (x @ p - y) / 50, p


FITS = {"net": net, "decay": decay, "lines": lines}


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("fit", FITS)
def test_a_right_gradient_is_not_refuted(fit, away):
    for seed in range(6):
        loss, gradient, p = FITS[fit](away, np.random.default_rng(seed))
        for mode in MODES:
            for given in (gradient, gradient(p)):
                report = fastcheck.check(loss, given, p, mode=mode, seed=seed)
                assert not report.verdict.refuted, (mode, seed, report)


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("mode", MODES)
def test_a_function_is_checked_beside_the_fit(mode, away):
    """Right ones pass, at any distance; and of wrong ones no more than one in six is left open, none passes."""
    left = 0
    for seed in range(6):
        loss, gradient, p = net(away, np.random.default_rng(seed))
        assert fastcheck.check(loss, gradient, p, mode=mode, seed=seed).verdict is Verdict.CORRECT

        def wrong(p, gradient=gradient):
            return gradient(p) | {"V": -gradient(p)["V"]}

        verdict = fastcheck.check(loss, wrong, p, mode=mode, seed=seed).verdict
        assert not verdict.passed
        left += not verdict.refuted
    assert left <= 1


def test_a_fit_is_said_to_be_one():
    loss, gradient, p = net(0.0, np.random.default_rng(0))
    report = fastcheck.check(loss, gradient(p), p)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "stationary" in [finding.kind for finding in report.findings]
    moved = {name: value * 1.1 for name, value in p.items()}
    report = fastcheck.check(loss, gradient(moved), moved)
    assert report.verdict is Verdict.CORRECT
    assert "stationary" not in [finding.kind for finding in report.findings]


def test_a_minimum_counted_from_afar_is_none():
    """The size of a time in seconds since 1970 says nothing of how far it is to the minimum."""
    rng = np.random.default_rng(0)
    start = 1.7e9
    p = start + rng.uniform(-2, 2, 9)
    report = fastcheck.check(lambda p: float(np.sum((p - start) ** 2)), 2 * (p - start), p)
    assert report.verdict is Verdict.CORRECT
    assert "stationary" not in [finding.kind for finding in report.findings]


@pytest.mark.parametrize("mode", ["full", "sample", "auto", "screen"])
def test_a_derivative_claimed_to_be_zero_is_measured_on_the_scale_of_its_parameter(mode):
    """A pulse of a volt that is delayed by nanoseconds, in one vector: a step of the volt's size leaves the window."""
    t = np.linspace(-5e-9, 12e-9, 60)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        p = np.array([rng.uniform(0.5, 3), rng.uniform(2e-9, 6e-9), rng.uniform(0.5e-9, 2e-9), rng.uniform(-1, 1)])

        def model(p):
            return p[0] * np.exp(-0.5 * ((t - p[1]) / p[2]) ** 2) + p[3]

        y = model(p * [0.9, 1.1, 1, 1]) + 0.02 * rng.normal(size=t.size)

        def loss(p, y=y, model=model):
            return float(0.5 * np.mean((model(p) - y) ** 2))

        r, u = (model(p) - y) / t.size, (t - p[1]) / p[2]
        e = np.exp(-0.5 * u**2)
        right = np.array([r @ e, r @ (p[0] * e * u) / p[2], r @ (p[0] * e * u**2) / p[2], r.sum()])
        assert fastcheck.check(loss, right, p, mode=mode, seed=seed).verdict is Verdict.CORRECT
        for k in (1, 2):
            wrong = right.copy()
            wrong[k] = 0.0
            report = fastcheck.check(loss, wrong, p, mode=mode, seed=seed)
            assert report.verdict is Verdict.WRONG
            assert [c.index for c in report.wrong] == [(k,)]
        np.testing.assert_allclose(fastcheck.numerical_gradient(loss, p), right, rtol=1e-5)


def test_a_function_that_gives_the_same_numbers_anywhere_is_taken_for_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    p = {"W": rng.normal(size=(5, 4)), "V": np.zeros((3, 5))}
    h = np.tanh(x @ p["W"].T)
    grads = {"W": np.zeros((5, 4)), "V": (h @ p["V"].T - y).T @ h}

    def loss(p):
        return float(0.5 * np.sum((np.tanh(x @ p["W"].T) @ p["V"].T - y) ** 2))

    for mode in MODES:
        for given in (grads, lambda p: grads):
            assert fastcheck.check(loss, given, p, mode=mode).verdict is Verdict.INCONCLUSIVE
