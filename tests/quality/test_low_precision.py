"""Losses that refuse float64: steps, uncertainty and verdicts in the precision of the user's own parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastcheck
from fastcheck.judge.verdict import Verdict
from fastcheck.losses import PythonLoss, evaluator_for
from fastcheck.measure.steps import GRAIN, fixed_steps, step_quantisation
from fastcheck.parameters import Parameters
from fastcheck.settings import Settings

from .nets import random_net

FALSE = (Verdict.WRONG, Verdict.SUSPICIOUS)


def strict(loss, dtype):
    """Return the loss as one that takes its parameters in one dtype only."""

    def only(params):
        for v in params.values():
            if v.dtype != dtype:
                raise TypeError(f"expected {np.dtype(dtype)}, got {v.dtype}")
        with np.errstate(all="ignore"):  # half precision overflows at a long step
            return loss(params)

    return only


def net_in(seed, dtype):
    net = random_net(seed, precision="float32")
    return dataclasses.replace(net, params={name: v.astype(dtype) for name, v in net.params.items()})


def smooth(dtype):
    """Return the parameters, loss and gradient of a small tanh net whose derivatives are of size one."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(16, 5)).astype(dtype)
    params = {"W": rng.normal(size=(5, 4)).astype(dtype), "v": rng.normal(size=4).astype(dtype)}
    m = dtype(len(X))

    def loss(p):
        return float(np.sum((np.tanh(X @ p["W"]) @ p["v"]) ** 2) / m)

    def gradient(p):
        A = np.tanh(X @ p["W"])
        d = 2 * (A @ p["v"]) / m
        return {"W": X.T @ (d[:, None] * p["v"] * (1 - A**2)), "v": A.T @ d}

    return params, loss, gradient


def low(params, loss):
    layout = Parameters.of(params)
    return evaluator_for(loss, layout, layout.flatten(params), ())


def called_in_float32(seed):
    net = net_in(seed, np.float32)
    report = fastcheck.check(strict(net.loss, np.float32), net.gradient, net.params, mode="full")
    assert report.verdict not in FALSE, (net.facts, str(report))
    assert report.findings[0].kind == "low_precision"


@pytest.mark.parametrize("seed", range(12))
def test_no_right_gradient_is_called_wrong_in_float32(seed):
    called_in_float32(seed)


@pytest.mark.explore
def test_no_fresh_right_gradient_is_called_wrong_in_float32(fresh):
    for seed in fresh(20):
        called_in_float32(seed)


@pytest.mark.parametrize("seed", [8, 9, 14, 24, 26, 30, 38, 45, 50])  # drawn with scales of one, and finite
def test_no_right_gradient_is_called_wrong_in_float16(seed):
    net = net_in(seed, np.float16)
    with np.errstate(all="ignore"):
        gradient = net.gradient(net.params)
        assert all(np.isfinite(g).all() for g in gradient.values())
    report = fastcheck.check(strict(net.loss, np.float16), gradient, net.params, mode="full")
    assert report.verdict not in FALSE, (net.facts, str(report))


@pytest.mark.parametrize("block", ["W", "v"])
def test_an_error_of_one_percent_of_a_block_is_found_in_float32(block):
    params, loss, gradient = smooth(np.float32)
    wrong = gradient(params)
    wrong[block] = wrong[block] * np.float32(1.01)
    report = fastcheck.check(strict(loss, np.float32), wrong, params, mode="full")
    assert report.verdict in FALSE
    (other,) = set(params) - {block}
    assert report.blocks[block].verdict in FALSE
    assert report.blocks[other].verdict not in FALSE


def test_a_doubled_block_is_found_in_float16():
    params, loss, gradient = smooth(np.float16)
    wrong = gradient(params)
    wrong["v"] = wrong["v"] * np.float16(2)
    report = fastcheck.check(strict(loss, np.float16), wrong, params, mode="full")
    assert report.blocks["v"].verdict in FALSE
    assert fastcheck.check(strict(loss, np.float16), gradient, params, mode="full").verdict not in FALSE


@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 4), (np.float16, 2)])
def test_what_cannot_be_resolved_is_inconclusive_and_says_how_many_digits_are_possible(dtype, digits):
    params, loss, gradient = smooth(dtype)
    beside = dtype(
        8 if dtype == np.float32 else 0
    )  # alone, float32 tells this gradient's digits well enough for a pass
    shifted = strict(lambda p: float(dtype(loss(p)) + beside), dtype)
    report = fastcheck.check(shifted, gradient, params, mode="full")
    assert report.verdict is Verdict.INCONCLUSIVE
    finding = report.findings[0]
    assert finding.kind == "low_precision"
    assert finding.evidence == {"dtype": np.dtype(dtype).name, "digits": digits}
    assert f"about {digits} digits" in finding.message
    assert f"expected {np.dtype(dtype)}" in finding.message
    assert finding.message in str(report).replace("\n", " ")


def test_a_tolerance_within_the_precision_can_pass():
    params, loss, gradient = smooth(np.float32)
    report = fastcheck.check(strict(loss, np.float32), gradient, params, mode="full", tolerance=0.02)
    assert report.passed


def test_the_automatic_mode_does_not_screen_in_low_precision(monkeypatch):
    monkeypatch.setattr(Settings, "mode_for", lambda *_: "screen")  # as for a loss too dear for a full check
    theta = {"x": np.linspace(1, 2, 200).astype(np.float32)}
    report = fastcheck.check(strict(lambda p: float(np.sum(p["x"] ** 2)), np.float32), {"x": 2 * theta["x"]}, theta)
    assert "directions" not in report.settings
    assert report.verdict not in FALSE


def test_a_loss_that_follows_its_dtype_keeps_the_float64_views():
    params, loss, gradient = smooth(np.float32)
    assert low(params, loss).refusal is None
    assert "low_precision" not in [f.kind for f in fastcheck.check(loss, gradient, params).findings]
    evaluator = low(params, strict(loss, np.float32))
    assert isinstance(evaluator, PythonLoss)
    assert evaluator.refusal == "TypeError: expected float32, got float64"
    assert evaluator.evaluations == 2


def test_a_loss_that_fails_in_both_precisions_is_said_to_fail():
    params, _, gradient = smooth(np.float32)

    def broken(p):
        raise ValueError("no data")

    with pytest.raises(fastcheck.LossError, match="no data"):
        fastcheck.check(broken, gradient, params)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("step", [1e-9, 1e-5, 1e-2, 0.3])
def test_steps_move_theta_by_about_as_much_to_both_sides(dtype, step):
    params, loss, _ = smooth(dtype)
    evaluator = low(params, strict(loss, dtype))
    places = np.arange(evaluator.theta.size)
    steps = fixed_steps(evaluator, step).of(evaluator, places)
    assert np.all(steps >= step)
    assert np.all(step_quantisation(evaluator, places, steps) <= GRAIN)
    moved = (evaluator.theta + steps).astype(dtype).astype(float) - evaluator.theta  # what the loss sees
    spacing = np.spacing(np.abs(evaluator.theta).astype(dtype)).astype(float)
    assert np.all(moved / np.minimum(spacing, np.spacing((evaluator.theta + steps).astype(dtype))) % 1 == 0)


@pytest.mark.parametrize("scheme", ["central", "forward", "richardson"])
@pytest.mark.parametrize("step", [None, 1e-7, 1e-3])
def test_the_achieved_step_is_what_is_divided_by(scheme, step):
    theta = {"x": np.linspace(0.1, 3.0, 40).astype(np.float32)}

    def loss(p):  # linear, and summed in float64: only the steps are of low precision
        return float(np.sum(3.0 * p["x"].astype(np.float64)))

    found = fastcheck.numerical_gradient(strict(loss, np.float32), theta, scheme=scheme, step=step)["x"]
    np.testing.assert_allclose(found, 3.0, rtol=1e-6 if scheme != "richardson" else 2 * GRAIN)
    right = {"x": np.full(40, 3.0)}
    report = fastcheck.check(strict(loss, np.float32), right, theta, scheme=scheme, step=step, mode="full")
    assert report.verdict not in FALSE, str(report)


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_float32_gradient_is_not_refuted_by_what_its_rounding_may_have_done(mode):
    params, loss, gradient = smooth(np.float32)
    exact = gradient({name: value.astype(np.float64) for name, value in params.items()})

    def check(factor, of, dtype):
        claimed = {name: (value * (factor if name == of else 1)).astype(dtype) for name, value in exact.items()}
        return fastcheck.check(loss, claimed, params, mode=mode)

    for block in params:
        assert check(1, block, np.float32).passed
        doubted = check(1 + 1e-4, block, np.float32)
        assert doubted.verdict is Verdict.INCONCLUSIVE
        assert not doubted.wrong
        assert [f.block for f in doubted.findings if f.kind == "rounding"] == [block]
        assert check(1.01, block, np.float32).blocks[block].verdict.refuted
        assert check(1 + 1e-4, block, np.float64).blocks[block].verdict.refuted


def test_a_float32_gradient_of_float64_parameters_has_no_such_excuse():
    params, loss, gradient = smooth(np.float64)
    claimed = {name: (value * (1 + 1e-5)).astype(np.float32) for name, value in gradient(params).items()}
    assert fastcheck.check(loss, claimed, params, mode="full").verdict is Verdict.SUSPICIOUS
