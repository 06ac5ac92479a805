"""What the user set with numpy.seterr and warnings is for the user's functions; fastcheck does not mind."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import InputError, LossError
from tests.parallel import losses

SCALES = (1e-300, 1e-200, 1e-100, 1e-30, 1.0, 1e30, 1e38, 1e43)
PLACES = (5e-324, 1e-310, 1e-160, 1.0, 1e160, 1e300)


@pytest.fixture
def strict():
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def problem(scale, place, kind):
    """Return a loss of units as given, at parameters as given; its own arithmetic signals nothing."""
    w = np.array([1.0, -0.5, 0.25, 0.75]) * place

    def quiet(function):
        def called(p):
            with np.errstate(all="ignore"):
                return function(np.asarray(p["w"], np.float64) / place)

        return called

    kinds = {
        "smooth": (lambda x: float(scale * np.sin(x).sum()), lambda x: np.cos(x)),
        "kinks": (lambda x: float(scale * np.abs(x).sum()), np.sign),
        "constant": (lambda x: float(scale), lambda x: 0 * x),
        "wrong": (lambda x: float(scale * np.sin(x).sum()), lambda x: 1.5 * np.cos(x)),
    }
    value, slope = kinds[kind]
    return quiet(value), quiet(lambda x: {"w": scale * slope(x) / place}), {"w": w}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("mode", ["full", "screen", "sample"])
@pytest.mark.parametrize("kind", ["smooth", "kinks", "constant", "wrong"])
def test_extreme_units_under_strict_settings(kind, mode):
    refused = []
    for scale in SCALES:
        for place in PLACES:
            with np.errstate(all="ignore"):
                arguments = problem(scale, place, kind)
            try:
                report = fastcheck.check(*arguments, mode=mode)
            except (LossError, InputError) as error:  # of units, or a gradient that overflows
                refused.append(str(error))
                continue
            assert str(report)
            assert report.to_dict()
            assert not (kind == "wrong" and report.passed), (scale, place)
            assert not (kind == "smooth" and report.verdict.refuted), (scale, place)
    assert all("in units so" in said or "not finite" in said for said in refused)


def test_the_loss_hears_what_the_user_set():
    with np.errstate(all="ignore"):
        assert fastcheck.check(lambda p: (seen.append(np.geterr()), losses.loss(p))[1], *REST, mode="full").passed
    assert {tuple(state.values()) for state in seen} == {("ignore",) * 4}
    with np.errstate(all="raise"), pytest.raises(LossError, match="FloatingPointError"):
        fastcheck.check(lambda p: losses.loss(p) + np.exp(np.float64(1e4)), *REST)
    with np.errstate(over="warn"), pytest.warns(RuntimeWarning, match="overflow"):
        fastcheck.check(lambda p: losses.loss(p) + 0 / np.exp(np.float64(1e4)), *REST)


seen: list[dict[str, str]] = []
REST = (losses.gradient, losses.PARAMS)


@pytest.mark.parametrize("backend", ["serial", "threads", "multiprocessing", "processes"])
def test_it_hears_the_same_in_every_worker(backend):
    """Where a step is taken, the loss overflows: it raises where the user set that, wherever it runs."""

    def loss(params):
        if params["W"][3, 1] != losses.PARAMS["W"][3, 1]:
            np.exp(np.float64(1e4))
        return losses.loss(params)

    def check():
        return fastcheck.check(loss, *REST, backend=backend, workers=2, mode="full")

    with np.errstate(all="ignore"):
        assert check().passed
    with np.errstate(all="raise"):
        report = check()
    assert any("FloatingPointError" in finding.message for finding in report.findings)
    assert np.geterr()["over"] == "warn"


def test_the_gradient_hears_it_too():
    def gradient(params):
        states.append(np.geterr()["over"])
        return losses.gradient(params)

    states: list[str] = []
    with np.errstate(over="raise"):
        fastcheck.check(losses.loss, gradient, losses.PARAMS, mode="full")
        fastcheck.check_terms({"one": (losses.loss, gradient)}, losses.PARAMS)
        fastcheck.Monitor(losses.loss, gradient).step(losses.PARAMS)
    assert states
    assert set(states) == {"raise"}


@pytest.mark.usefixtures("strict")
def test_the_other_entries_under_strict_settings():
    assert fastcheck.Monitor(losses.loss, losses.gradient).step(losses.PARAMS).passed
    assert fastcheck.check_terms({"one": (losses.loss, losses.gradient)}, losses.PARAMS).passed
    assert fastcheck.self_test(losses.loss, losses.gradient, losses.PARAMS, smallest=False).passed
    with np.errstate(all="ignore"):
        loss, _, params = problem(1e-100, 1e-160, "smooth")
    assert np.isfinite(fastcheck.numerical_gradient(loss, params)["w"]).all()
