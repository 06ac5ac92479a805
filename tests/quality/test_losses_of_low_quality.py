"""Noisy losses, float32 inside, kinks at theta, jumps, random and stateful losses: what is said of each."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.judge.verdict import Verdict

PROBLEM = examples.digits_net(hidden=(16,), batch=32)


def solver(relative):
    """Return the loss with the noise of an iterative solver stopped early: a fixed function of theta, but rough."""

    def loss(params, *args):
        key = zlib.crc32(np.concatenate([v.ravel() for v in params.values()]).tobytes())
        return PROBLEM.loss(params, *args) * (1 + relative * np.random.default_rng(key).standard_normal())

    return loss


def check(loss, scale=1.0, **options):
    gradient = {name: g.copy() for name, g in PROBLEM.claimed().items()}
    gradient["W2"] *= scale
    return fastcheck.check(loss, gradient, PROBLEM.params, args=PROBLEM.args, mode="full", **options)


def test_a_solver_stopped_early():
    noisy = solver(1e-6)
    assert check(noisy).verdict is Verdict.INCONCLUSIVE  # 1e-7 can't be asked of it ...
    assert check(noisy, 1 + 1e-7).verdict is Verdict.INCONCLUSIVE
    wrong = check(noisy, 1.05)
    assert not wrong.passed
    assert wrong.blocks["W2"].verdict in (Verdict.WRONG, Verdict.SUSPICIOUS)
    assert check(noisy, tolerance=0.05).passed  # ... but 5% can
    assert "noisy_loss" in [finding.kind for finding in wrong.findings]


def test_float32_inside_a_float64_wrapper_is_found_out():
    def loss(params, X, y, *rest):
        low = {name: v.astype(np.float32) for name, v in params.items()}
        return float(np.float32(PROBLEM.loss(low, X.astype(np.float32), y, *rest)))

    report = check(loss)
    assert report.verdict is Verdict.INCONCLUSIVE
    (finding,) = [f for f in report.findings if f.kind == "noisy_loss"]
    assert "float32" in finding.message
    assert 5 <= finding.evidence["digits"] <= 8


STEPS = {
    "rounded parameters": lambda x: float(np.sum(np.round(x) * np.arange(8.0) ** 1.5)),
    "counted": lambda x: float(np.count_nonzero(x > 0.1) + 3),
    "quantised": lambda x: float(np.sum(np.round(32 * x) / 32 * np.arange(8.0)) + 0.1),
    "half precision inside": lambda x: float(np.sum(np.exp(x.astype(np.float16)).astype(np.float64))),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_piecewise_constant_loss_is_named(name):
    """It passes no gradient and refutes none: what it is the steps of is for its owner to say."""
    x = np.random.default_rng(0).normal(size=8)
    report = fastcheck.check(STEPS[name], lambda x: np.arange(8.0), x, mode="full")
    assert not report.passed
    (finding,) = [f for f in report.findings if f.kind in ("piecewise_constant", "noisy_loss")]
    assert finding.kind == "piecewise_constant"
    assert "solve more tightly" not in str(report)


@pytest.mark.parametrize("digits", [2, 4])
def test_a_printed_loss_is_none(digits):
    report = fastcheck.check(
        lambda x: round(3 + float(np.sum(np.sin(x))), digits), np.cos, np.arange(1.0, 6.0), mode="full"
    )
    assert "piecewise_constant" not in [finding.kind for finding in report.findings]


def test_float32_parameters_are_checked_through_float64():
    low = {name: v.astype(np.float32) for name, v in PROBLEM.params.items()}
    report = fastcheck.check(PROBLEM.loss, PROBLEM.gradient, low, args=PROBLEM.args, mode="full")
    assert report.verdict is Verdict.CORRECT
    assert max(block.uncertainty for block in report.blocks.values()) < 1e-6


def test_thirty_layers_of_float32_pass():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(16, 6)).astype(np.float32)
    params = [(rng.normal(size=(6, 6)) / 6).astype(np.float32) for _ in range(30)]

    def forward(weights):
        A = [X.astype(weights[0].dtype)]
        for W in weights:
            A.append(np.tanh(A[-1] @ W + A[-1]))
        return A

    def loss(weights):
        return 0.5 * float(np.mean(np.sum(forward(weights)[-1] ** 2, axis=1)))

    def gradient(weights):
        A = forward(weights)
        d, out = A[-1] / len(X), []
        for W, before, after in zip(weights[::-1], A[-2::-1], A[:0:-1], strict=True):
            d = d * (1 - after**2)
            out.append(before.T @ d)
            d = d @ W.T + d
        return out[::-1]

    low = gradient(params)
    assert low[0].dtype == np.float32
    report = fastcheck.check(loss, low, params, mode="full")
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS), str(report)
    assert fastcheck.check(loss, gradient, params, mode="full").passed


@pytest.mark.parametrize("slope", [-1.0, -0.3, 0.0, 1.0])
def test_any_subgradient_is_acceptable_at_a_kink(slope):
    report = fastcheck.check(
        lambda t: float(np.sum(np.abs(t)) + 0.5 * np.sum(t**2)),
        np.array([slope, 3.0]),
        np.array([0.0, 2.0]),
        mode="full",
    )
    assert report.passed
    kinks = [f.evidence["at"] for f in report.findings if f.kind == "kinks"]
    assert kinks == ([[0]] if slope else [])  # zero is the central difference itself: nothing stood out


def test_no_subgradient_is_wrong_at_a_kink():
    report = fastcheck.check(
        lambda t: float(np.sum(np.abs(t))), np.array([1.5, 1.0]), np.array([0.0, 2.0]), mode="full"
    )
    assert [c.name for c in report.wrong] == ["theta[0]"]


def test_a_crossed_kink_is_measured_again():
    theta = np.linspace(0.5, 2.0, 200)
    theta[77] = 1e-6  # the first step crosses zero there

    def loss(t):
        return float(np.sum(np.maximum(t, 0) * 3 - np.sin(t)))

    report = fastcheck.check(loss, 3 - np.cos(theta), theta, mode="full")
    assert report.passed
    assert report.blocks["theta"].kinks == 1


def test_a_jump_is_said_and_not_reported_as_a_huge_gradient():
    report = fastcheck.check(
        lambda t: float(np.sum(t**2) + (t[0] >= 0.5)), np.array([1.0, 2.0]), np.array([0.5, 1.0]), mode="full"
    )
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [f.block for f in report.findings if f.kind == "jump"] == ["theta"]
    assert report.wrong == ()


@pytest.mark.parametrize("tiny", [1e-9, 1e-12])
def test_tiny_gradients_are_judged_against_the_noise(tiny):
    def loss(p):
        return float(np.sum(p["big"] ** 2) + tiny * np.sum(np.sin(p["small"])))

    params = {"big": np.array([1.0, 2.0, 3.0]), "small": np.array([0.3, 0.4])}
    right = {"big": 2 * params["big"], "small": tiny * np.cos(params["small"])}
    report = fastcheck.check(loss, right, params, mode="full")
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS)
    assert report.blocks["big"].verdict is Verdict.CORRECT
    assert not report.blocks["small"].verdict.passed or report.blocks["small"].uncertainty < 1e-4


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("step", [None, 1e-2, 1e-5, 1e-9])
def test_a_step_of_the_users_own_never_makes_a_correct_gradient_wrong(scale, step):
    theta = np.linspace(0.5, 2.0, 7)
    report = fastcheck.check(lambda t: float(scale * np.sum(t**3)), 3 * scale * theta**2, theta, step=step, mode="full")
    assert report.verdict not in (Verdict.WRONG, Verdict.SUSPICIOUS)
