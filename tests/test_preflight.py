"""What the preflight costs, what it leaves behind, and that it stays silent about a good loss."""

from __future__ import annotations

import numpy as np
import pytest

from fastcheck.losses.python import PythonLoss
from fastcheck.parameters import Parameters
from fastcheck.preflight import preflight

AT = {"w": np.array([0.5, 0.7, 1.0]), "b": np.array([0.2])}


def loss(p, x):
    return float(np.sum(np.sin(p["w"] * x)) + p["b"][0])


def gradient(p, x):
    return {"w": x * np.cos(p["w"] * x), "b": np.ones(1)}


def look(loss=loss, gradient=gradient, x=2.0):
    layout = Parameters.of(AT)
    evaluator = PythonLoss(loss, layout, layout.flatten(AT), (x,))
    return evaluator, preflight(evaluator, gradient, (x,), np.random.default_rng(0))


def test_a_good_loss_costs_four_evaluations_and_no_words():
    evaluator, seen = look()
    assert evaluator.evaluations == 4
    assert seen.findings == ()
    assert not seen.fatal
    assert seen.base == loss(AT, 2.0)
    assert seen.repeat == 0
    expected = gradient(AT, 2.0)
    assert seen.analytic.flat.tolist() == [*expected["w"], 1]


def test_theta_is_as_it_was():
    evaluator, _ = look()
    layout = evaluator.layout
    assert evaluator.theta.tolist() == layout.flatten(AT).tolist()
    assert evaluator.base() == loss(AT, 2.0)
    assert evaluator.untouched


def test_noise_from_threads_that_sum_in_another_order_is_no_randomness():
    calls = 0

    def jittery(p, x):
        nonlocal calls
        calls += 1
        return loss(p, x) * (1 + (calls % 3) * 2e-16)

    _, seen = look(jittery)
    assert not seen.fatal
    assert 0 < seen.repeat < 1e-14


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0])
def test_randomness_beyond_noise_is_found(size):
    rng = np.random.default_rng(1)
    _, seen = look(lambda p, x: loss(p, x) * (1 + size * rng.standard_normal()))
    assert seen.fatal is (size > 1e-9)
    if seen.fatal:
        assert seen.findings[0].kind == "random_loss"
        assert len(seen.findings[0].evidence["values"]) == 4


def test_the_gradient_is_called_once_and_with_the_arguments():
    given = []

    def counted(p, x):
        given.append(x)
        return gradient(p, x)

    look(gradient=counted, x=3.0)
    assert given == [3.0]


def test_a_step_away_that_fails_is_no_error():
    def bounded(p, x):
        if p["w"][1] != 0.7:
            raise FloatingPointError("not there")
        return loss(p, x)

    evaluator, seen = look(bounded)
    assert not seen.fatal
    assert "not there" in evaluator.failure


def test_why_takes_four_more_evaluations_at_most():
    rng = np.random.default_rng(1)
    evaluator, seen = look(lambda p, x: float(rng.standard_normal()))
    assert seen.fatal
    assert evaluator.evaluations <= 8
