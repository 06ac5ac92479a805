from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck import thresholds
from fastcheck.estimates import Estimate, Estimates, Status
from fastcheck.judge.coordinates import CHUNK, Judge, Lost, Norms, excess, excess_of_one
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import Parameters
from fastcheck.thresholds import GRADIENT_ROUNDING
from tests.naive import relative_errors, textbook_ratio

EPS = float(np.finfo(float).eps)
JUDGE = Judge(1e-7, 0.9999, 100)


def measured(value, rounding=0.0, truncation=0.0, name="W"):
    value = np.asarray(value, dtype=float)
    block = Parameters.of({name: value}).blocks[0]
    found = Estimates.empty(block)
    found.value[:] = value
    found.rounding[:] = rounding
    found.truncation[:] = truncation
    return found


def test_ratio_is_the_textbooks(rng):
    g, n = rng.normal(size=1000), rng.normal(size=1000)
    norms = JUDGE.compare(measured(n), g, Lost(EPS)).norms
    assert norms.difference == pytest.approx(textbook_ratio(g, n), rel=1e-14)
    long = np.sqrt(np.sum((g.astype(np.longdouble) - n) ** 2)) / (
        np.sqrt(np.sum(g.astype(np.longdouble) ** 2)) + np.sqrt(np.sum(n.astype(np.longdouble) ** 2))
    )
    assert norms.difference == pytest.approx(float(long), rel=1e-13)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 10)), min_size=1, max_size=20))
def test_excess_is_that_of_the_slow_twin(rows):
    g, n, u = (np.array(column) for column in zip(*rows, strict=True))
    u = u.astype(np.float32).astype(float)  # the uncertainty is kept with the digits it needs
    found = measured(n, rounding=u)
    own = GRADIENT_ROUNDING * EPS * np.abs(g).max()
    twin = relative_errors(g.tolist(), n.tolist(), (u + own).tolist())
    np.testing.assert_allclose(JUDGE.excess(found, g, Lost(EPS)), twin, rtol=1e-6, atol=1e-13)  # in float32


def test_excess_of_one_error_is_that_of_many():
    numbers = [0.0, 1e-300, 0.3, 1.0, 7.5, math.inf, math.nan]
    for distance, uncertainty, scale in itertools.product(numbers, numbers, numbers[:-1]):
        with np.errstate(all="ignore"):
            many = float(excess(distance, uncertainty, scale))
        assert np.array_equal(excess_of_one(distance, uncertainty, scale), many, equal_nan=True)


def test_blocks_longer_than_a_chunk_are_compared_whole(rng):
    size = CHUNK + 1234
    n = rng.normal(size=size)
    g = n.copy()
    wrong = [3, CHUNK - 1, CHUNK, size - 1]
    g[wrong] *= [1.1, 1.3, 1.2, 1.4]
    compared = JUDGE.compare(measured(n), g, Lost(EPS))
    assert compared.wrong.tolist() == [size - 1, CHUNK - 1, CHUNK, 3]  # worst first
    assert compared.norms.count == size
    assert compared.norms.difference == pytest.approx(textbook_ratio(g, n), rel=1e-12)


def test_norms_add_up(rng):
    g, n = rng.normal(size=50), rng.normal(size=50)
    whole = JUDGE.compare(measured(n, 1e-9, 1e-10), g, Lost(0.0)).norms
    parts = [JUDGE.compare(measured(n[s], 1e-9, 1e-10), g[s], Lost(0.0)).norms for s in (slice(0, 20), slice(20, 50))]
    for name, value in dataclasses.asdict(sum(parts, Norms())).items():
        assert value == pytest.approx(getattr(whole, name), rel=1e-12), name


@pytest.mark.parametrize(("limit", "below", "above"), [
    (1e-7, Verdict.CORRECT, Verdict.SUSPICIOUS),
    (1e-2, Verdict.SUSPICIOUS, Verdict.WRONG),
])  # fmt: skip
def test_grade_of_a_block_at_the_limits(limit, below, above, rng):
    n = rng.normal(size=10)
    for d, verdict in ((limit * (1 - 1e-6), below), (limit * (1 + 1e-6), above)):
        assert JUDGE.compare(measured(n), n * (1 + d) / (1 - d), Lost(0.0)).verdict is verdict


def test_an_error_within_its_uncertainty_is_none(rng):
    n = rng.normal(size=10)
    off = np.zeros(10)
    off[4] = 0.9e-6  # rounding is as good as random: it may be large once, not ten times with one sign
    for found, g in ((measured(n, truncation=1e-6), n + 0.9e-6), (measured(n, rounding=1e-6), n + off)):
        compared = JUDGE.compare(found, g, Lost(EPS))
        assert compared.verdict is Verdict.CORRECT
        assert compared.excess == 0
    assert JUDGE.compare(measured(n, rounding=1e-6), n + 0.9e-6, Lost(EPS)).verdict is Verdict.SUSPICIOUS
    assert JUDGE.compare(measured(n, rounding=1e-6), n + 3e-6, Lost(EPS)).verdict is Verdict.SUSPICIOUS


def test_nothing_is_passed_on_an_uncertainty_too_large(rng):
    n = rng.normal(size=10)
    compared = JUDGE.compare(measured(n, truncation=1e-3), n, Lost(EPS))
    assert compared.verdict is Verdict.INCONCLUSIVE
    assert not compared.resolved
    assert (
        JUDGE.compare(measured(n, truncation=1e-3), 2 * n, Lost(EPS)).verdict is Verdict.WRONG
    )  # but wrong is still wrong


@pytest.mark.parametrize("zero", [0.0, 1e-20])
def test_silence(zero):
    compared = JUDGE.compare(measured(np.full(3, zero), rounding=1e-12), np.full(3, zero), Lost(EPS))
    assert not compared.resolved
    assert compared.verdict is Verdict.INCONCLUSIVE


def test_kinks_are_intervals():
    n = np.array([0.0, 1.0])
    for g, verdict in ((-1.0, Verdict.CORRECT), (0.2, Verdict.CORRECT), (1.0, Verdict.CORRECT), (1.2, Verdict.WRONG)):
        found = measured(n)
        found.put(0, Estimate(0.0, 0.0, 0.0, -1.0, 1.0, Status.KINK))
        compared = JUDGE.compare(found, np.array([g, 1.0]), Lost(EPS))
        assert compared.verdict is verdict, g
        assert compared.kinks == 1


def test_missing_is_counted_and_never_compared():
    n = np.array([1.0, np.nan, 3.0])
    compared = JUDGE.compare(measured(np.array([1.0, 2.0, 3.0])), np.array([1.0, 2.0, 3.0]), Lost(EPS))
    found = measured(np.array([1.0, 2.0, 3.0]))
    found.value[:] = n
    missing = JUDGE.compare(found, np.array([1.0, 99.0, 3.0]), Lost(EPS))
    assert (missing.missing, missing.norms.count) == (1, 2)
    assert JUDGE.whole([compared], False)[1] is Verdict.CORRECT
    assert JUDGE.whole([compared, missing], False)[1] is Verdict.INCONCLUSIVE


def test_the_whole_is_the_worst_of_its_blocks(rng):
    n = rng.normal(size=10)
    right, wrong = JUDGE.compare(measured(n), n, Lost(EPS)), JUDGE.compare(measured(n), 2 * n, Lost(EPS))
    silent = JUDGE.compare(measured(0 * n), 0 * n, Lost(EPS))
    assert JUDGE.whole([right, silent], True)[1] is Verdict.CORRECT
    assert JUDGE.whole([right, silent], False)[1] is Verdict.INCONCLUSIVE
    assert JUDGE.whole([right, wrong], True)[1] is Verdict.WRONG
    assert JUDGE.whole([silent], True)[1] is Verdict.INCONCLUSIVE
    norms, _ = JUDGE.whole([right, wrong], False)
    assert norms.difference == pytest.approx(textbook_ratio(np.r_[n, 2 * n], np.r_[n, n]), rel=1e-12)


def test_one_wrong_coordinate_in_a_block_so_large_that_its_ratio_hides_it(rng):
    n = rng.normal(size=200_000)
    g = n.copy()
    g[777] *= 1 + 1e-5
    compared = JUDGE.compare(measured(n), g, Lost(EPS))
    assert compared.norms.difference < 1e-7
    assert compared.wrong.tolist() == [777]
    assert compared.verdict is Verdict.SUSPICIOUS


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_noise_exceeds_z_as_seldom_as_promised(count, first_seed):
    # With confidence 0.9 and `count` draws a run, noise alone exceeds z in at most 10% of the runs; of 4000 runs at
    # most 10% + 4 standard errors (1.9%).
    z = Judge(1e-7, 0.9, count).z
    draws = np.random.default_rng(first_seed + count).standard_normal((4000, count))
    share = np.mean(np.abs(draws).max(axis=1) > z)
    assert share < 0.119
    assert share > 0.07  # and it is not wasteful: Bonferroni is nearly exact here


def test_z_grows_slowly():
    assert Judge(1e-7, 0.9999, 1).z == pytest.approx(3.8906, abs=1e-4)
    assert Judge(1e-7, 0.9999, 10**7).z < 7


@pytest.mark.parametrize("count", [1, 3, 30, 300])
def test_norm_of_equal_noise_stays_below_its_bound(count, first_seed):
    # The bound has a safety factor of 2 in the noise: without an error it is exceeded in none of 2000 runs.
    judge = Judge(1e-7, 0.9999, count)
    rng = np.random.default_rng(first_seed + count)
    level = 1e-6
    truth = np.ones(count)
    for _ in range(2000):
        value = truth + level * rng.standard_normal(count) / math.sqrt(2)  # (e+ - e-) / 2h with h = 1
        compared = judge.compare(measured(value, rounding=thresholds.SAFETY * judge.z * level), truth, Lost(EPS))
        assert compared.excess == 0
        assert compared.excess == 0
