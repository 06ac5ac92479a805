"""What is said of random cotangents and tangents holds as often as it is said to."""

import math

import mpmath
import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict
from fastcheck.measure.directions import COTANGENT, bounded, gaussian, visible
from fastcheck.products.claims import spread


def test_entries_are_away_from_zero_and_as_often_negative_as_not():
    drawn = np.concatenate([bounded(0, COTANGENT, k, 1000) for k in range(40)])
    size = np.abs(drawn)
    assert size.min() >= 0.5
    assert size.max() <= 1.5
    # 40,000 uniform sizes and fair signs: 4.5 standard deviations, a chance of 7e-6 each
    assert abs(size.mean() - 1) < 4.5 * math.sqrt(1 / 12 / drawn.size)
    assert abs(size.var() - 1 / 12) < 4.5 * math.sqrt(1 / 180 / drawn.size)
    assert abs(np.sign(drawn).mean()) < 4.5 / math.sqrt(drawn.size)


def test_high_precision_twin():
    for normal, got in zip(gaussian(3, COTANGENT, 1, 0, 50), bounded(3, COTANGENT, 1, 50), strict=True):
        share = 2 * mpmath.ncdf(abs(mpmath.mpf(normal))) - 1
        assert got == pytest.approx(float(mpmath.sign(normal) * (mpmath.mpf(1) / 2 + share)), rel=1e-14)


@pytest.mark.parametrize(
    "errors", [[1.0, 1.0], [1.0, -1.0], [1.0, 0.5, 0.5], [2.0, 1.0, 1.0, -1.0], [1.0] * 7, [1.0, 1e-3]]
)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_errors_of_several_outputs_cancel_no_more_often_than_said(errors, share, first_seed):
    drawn = np.array([bounded(first_seed + 1, COTANGENT, k, len(errors)) for k in range(4000)])
    hidden = np.mean(np.abs(drawn @ errors) <= share * max(errors))
    # P(hidden) <= share; the estimate's standard deviation is at most sqrt(share / 4000): 4 of them, 3e-5 each
    assert hidden <= share + 4 * math.sqrt(share / 4000)
    single = np.abs(drawn[:, 0] * errors[0])
    assert single.min() >= 0.5 * errors[0]


def test_the_share_that_is_seen_is_the_one_of_the_report():
    assert visible(1, 0.9) == pytest.approx(0.1)
    assert visible(4, 0.9999) == pytest.approx(0.1)
    drawn = np.array([[bounded(2, COTANGENT, 4 * t + k, 2) for k in range(2)] for t in range(4000)])
    seen = np.abs(drawn @ [1.0, -1.0]).max(axis=1)
    # with two cotangents and a confidence of 90%, at most 10% of the runs see less: 4 standard deviations, 3e-5
    assert np.mean(seen <= visible(2, 0.9)) <= 0.1 + 4 * math.sqrt(0.1 / 4000)
    report = fastcheck.check_vjp(lambda x: np.sin(x), lambda x, u: np.cos(x) * u, np.ones(20))
    assert report.settings["visible"] == visible(3, 0.9999)


@pytest.mark.parametrize("count", [2, 8])
def test_a_bound_along_tangents_holds_for_the_block(count, first_seed):
    rng = np.random.default_rng(first_seed + count)
    error, gradient = rng.normal(size=(2, 200))
    factor, held = spread(count, 1, 0.9), []
    for _ in range(2000):
        tangents = rng.normal(size=(count, 200))
        along = np.linalg.norm(tangents @ error) / np.linalg.norm(tangents @ gradient)
        held.append(np.linalg.norm(error) / np.linalg.norm(gradient) <= factor * along)
    # at least 90% of 2,000 runs: 4 standard deviations of a fair count, a chance of 3e-5
    assert np.mean(held) >= 0.9 - 4 * math.sqrt(0.09 / 2000)


@pytest.mark.parametrize("runs", [10, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["vjp", "jvp"])
def test_errors_planted_anywhere_in_the_jacobian_are_all_found(form, runs):
    """Relative errors of 1e-3 of one to three entries: that one of the Jacobians passes has a chance below 1e-2."""
    assert planted_and_found(form, np.random.default_rng(11), range(runs)) == runs


@pytest.mark.explore
@pytest.mark.parametrize("form", ["vjp", "jvp"])
def test_errors_planted_anew_are_all_found(form, fresh):
    assert planted_and_found(form, np.random.default_rng(fresh(1)[0]), fresh(60)) == 60


def planted_and_found(form, rng, seeds):
    found = 0
    for seed in seeds:
        m, n = rng.integers(2, 30, size=2)
        A, x = rng.normal(size=(m, n)) + 3, rng.normal(size=n)
        wrong = A.copy()
        for _ in range(rng.integers(1, 4)):
            wrong[rng.integers(m), rng.integers(n)] *= 1 + 1e-3 * rng.choice([-1, 1])
        if form == "vjp":
            report = fastcheck.check_vjp(lambda x, A=A: A @ x, lambda x, u, B=wrong: B.T @ u, x, seed=seed)
        else:
            report = fastcheck.check_jvp(lambda x, A=A: A @ x, lambda x, v, B=wrong: B @ v, x, seed=seed)
        places = {f"theta[{column}]" for column in np.flatnonzero(np.any(wrong != A, axis=0))}
        assert {c.name for c in report.wrong} <= places
        found += report.verdict in (Verdict.WRONG, Verdict.SUSPICIOUS)
    return found
