"""The Taylor test: its fit against a twin of many digits, the orders of right and wrong gradients, and what it says."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.report.report import Report
from fastcheck.taylor import FITTED, STEPS, order_of
from fastcheck.thresholds import TAYLOR_CLEAR

T = np.array(STEPS)


def slow_order(steps, remainders):
    """Return the least squares slope of log R over log t in 50 digits, from the normal equations."""
    with mpmath.workdps(50):
        x = [mpmath.log(mpmath.mpf(float(t))) for t in steps]
        y = [mpmath.log(mpmath.mpf(float(r))) for r in remainders]
        n = len(x)
        sxy = mpmath.fsum(a * b for a, b in zip(x, y, strict=True))
        sxx = mpmath.fsum(a * a for a in x)
        return float((n * sxy - sum(x) * sum(y)) / (n * sxx - sum(x) ** 2))


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_that_of_the_slow_twin(seed):
    rng = np.random.default_rng(seed)
    remainders = rng.uniform(0.5, 2, len(T)) * T ** rng.uniform(0.5, 3)
    errors = np.full(len(T), 0.99 * remainders[4] / TAYLOR_CLEAR)
    clear = np.flatnonzero(remainders > TAYLOR_CLEAR * errors)[-FITTED:]
    assert order_of(T, remainders, errors) == pytest.approx(slow_order(T[clear], remainders[clear]), rel=1e-12)


def test_remainders_below_the_noise_do_not_count():
    remainders = 3 * T**2
    remainders[4:] = 1e-3  # noise
    assert order_of(T, remainders, np.full(len(T), 1e-3 / TAYLOR_CLEAR)) != order_of(T, remainders, np.zeros(len(T)))
    assert math.isnan(order_of(T, 3 * T**2, np.full(len(T), 3 * T[2] ** 2 / TAYLOR_CLEAR)))  # two are left
    assert math.isnan(order_of(T, np.zeros(len(T)), np.zeros(len(T))))  # a linear loss leaves nothing
    assert order_of(T, np.where(T[1] < T, np.nan, 3 * T**2), np.zeros(len(T))) == pytest.approx(2)


def test_the_remainders_are_those_of_a_cubic_in_closed_form():
    # J = x^3 in one coordinate: R(t) = |3 x d^2 + d^3| with d = t v, and v is the sign and size drawn.
    report = fastcheck.check(lambda x: float(x[0] ** 3), np.array([12.0]), np.array([2.0]), mode="full")
    v = math.sqrt(report.taylor.remainders[-1] / 6) / STEPS[-1]  # of the smallest step, its cube left out
    assert 1.0 <= v <= 2.0  # half to all of the parameter's magnitude
    with mpmath.workdps(50):
        exact = [[float(abs(6 * (s * v * t) ** 2 + (s * v * t) ** 3)) for t in report.taylor.steps] for s in (1, -1)]
    assert any(np.allclose(report.taylor.remainders, one, rtol=1e-4) for one in exact)
    assert report.taylor.order == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(("decimals", "taken"), [(17, STEPS[-FITTED:]), (7, STEPS)])
def test_longer_steps_are_taken_where_the_shortest_do_not_stand_clear(decimals, taken):
    theta = np.random.default_rng(1).normal(size=30)
    report = fastcheck.check(lambda t: round(float(np.sum(t**2)), decimals), 2 * theta, theta, mode="full")
    assert report.taylor.steps == taken
    assert len(report.taylor.remainders) == len(taken)
    assert report.taylor.order == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("mode", ["full", "sample"])
@pytest.mark.parametrize("seed", range(4))
def test_orders_of_right_and_wrong_gradients(mode, seed):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(30, 30))
    theta = rng.normal(size=30)

    def loss(t):
        return float(np.sum(np.log1p(np.exp(A @ t))) + 0.1 * np.sum(np.sin(t)))

    right = A.T @ (1 / (1 + np.exp(-A @ theta))) + 0.1 * np.cos(theta)
    good = fastcheck.check(loss, right, theta, mode=mode, seed=seed)
    assert good.passed
    assert good.taylor.order == pytest.approx(2, abs=0.1)
    bad = fastcheck.check(loss, 1.05 * right, theta, mode=mode, seed=seed)
    assert not bad.passed
    assert bad.taylor.order == pytest.approx(1, abs=0.1)
    for report in (good, bad):
        assert "taylor" not in [finding.kind for finding in report.findings]  # it agrees: nothing to say


def test_a_piecewise_linear_and_a_noisy_loss_have_no_order():
    theta = np.linspace(1.0, 2.0, 5)
    report = fastcheck.check(lambda t: float(np.sum(np.abs(t))), np.ones(5), theta, mode="full")
    assert report.passed
    assert math.isnan(report.taylor.order)

    def rough(t):
        key = int.from_bytes(np.float64(t.sum()).tobytes(), "little")
        return float(np.sum(t**2)) * (1 + 1e-4 * np.random.default_rng(key).standard_normal())

    assert math.isnan(fastcheck.check(rough, 2 * theta, theta, mode="full").taylor.order)


def test_an_error_where_nothing_was_measured_is_said():
    theta = np.random.default_rng(0).normal(size=3000)
    gradient = 2 * theta
    gradient[1234] *= -100
    report = fastcheck.check(lambda t: float(np.sum(t**2)), gradient, theta, mode="sample", samples=20)
    assert report.passed  # it changes no verdict
    assert report.findings[0].kind == "taylor"
    assert report.taylor.order == pytest.approx(1, abs=0.1)
    right = fastcheck.check(lambda t: float(np.sum(t**2)), 2 * theta, theta, mode="sample", samples=20)
    assert right.taylor.order == pytest.approx(2, abs=0.1)
    assert "taylor" not in [finding.kind for finding in right.findings]


def test_a_kink_at_theta_off_the_sample_is_no_contradiction():
    theta = np.random.default_rng(0).normal(size=3000)
    theta[1234] = 0.0  # a kink there leaves a linear remainder to one side

    def loss(t):
        return float(np.sum(t**2) + 100 * np.maximum(t[1234], 0))

    report = fastcheck.check(loss, 2 * theta, theta, mode="sample", samples=20)
    assert report.passed
    assert "taylor" not in [finding.kind for finding in report.findings]


def test_it_stays_out_of_the_screen_and_survives_the_file(tmp_path):
    problem = examples.digits_net(hidden=(8,), batch=16)
    screened = fastcheck.check(problem.loss, problem.claimed(), problem.params, args=problem.args, mode="screen")
    assert screened.taylor is None
    report = fastcheck.check(problem.loss, problem.claimed(), problem.params, args=problem.args, mode="full")
    assert report.taylor.steps == STEPS[-FITTED:]
    back = Report.load(report.save(tmp_path / "report.json"))
    assert back.taylor == report.taylor
    linear = dataclasses.replace(report, taylor=dataclasses.replace(report.taylor, order=math.nan))
    assert math.isnan(Report.load(linear.save(tmp_path / "linear.json")).taylor.order)


def test_only_the_checked_blocks_are_moved():
    params = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    report = fastcheck.check(
        lambda p: float(np.sum(p["a"] ** 2) + p["b"][0] ** 2),
        {"a": np.array([2.0, 4.0]), "b": np.array([99.0])},
        params,
        blocks="a",
        mode="full",
    )
    assert report.passed
    assert report.taylor.order == pytest.approx(2, abs=0.02)


def test_an_error_that_cancels_the_curvature_at_one_step_is_refuted_all_the_same():
    for error in np.geomspace(3e-7, 1e-4, 40):
        for sign in (1, -1):
            wrong = np.array([(1 + sign * error) * np.e])
            report = fastcheck.check(lambda t: float(np.exp(t[0])), wrong, np.array([1.0]), mode="full")
            assert report.verdict.refuted, error
