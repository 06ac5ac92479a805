"""The bounds against simulation and against slow exact sums."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fastcheck.judge.bounds import (
    chi_square_above,
    chi_square_below,
    detectable_norm,
    error_norm,
    error_norm_bound,
    error_norm_floor,
    normal_above,
    sample_size,
    split,
    wrong_count_bound,
)


def chance_of_at_most(failures: int, population: int, wrong: int, sampled: int) -> Fraction:
    """P(X <= failures), X hypergeometric, by counting."""
    ways = sum(
        math.comb(wrong, x) * math.comb(population - wrong, sampled - x)
        for x in range(max(0, sampled - (population - wrong)), failures + 1)
    )
    return Fraction(ways, math.comb(population, sampled))


def within(count: int, runs: int, chance: float) -> bool:
    """Say whether so many events are no surprise (1e-6) where each has at most this chance."""
    return bool(stats.binom.sf(count - 1, runs, chance) > 1e-6)


@pytest.mark.parametrize("chance", [1e-30, 1e-10, 1e-4, 0.3, 0.9999])
def test_quantiles_are_those_of_scipy(chance):
    assert normal_above(chance) == pytest.approx(stats.norm.isf(chance), rel=1e-12)
    for k in (1, 2, 7, 200, 10**5):
        assert chi_square_above(chance, k) == pytest.approx(stats.chi2.isf(chance, k), rel=1e-9)
        assert chi_square_below(chance, k) == pytest.approx(stats.chi2.ppf(chance, k), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_the_bound_covers_the_norm_as_often_as_it_says_whatever_the_noise(k, confidence, noise, first_seed):
    rng = np.random.default_rng(first_seed + k)
    runs, norm = 1000, 3.0
    residuals = norm * rng.standard_normal((runs, k)) + noise * norm * rng.standard_normal((runs, k))
    missed = sum(error_norm_bound(row, confidence) < norm for row in residuals)
    assert within(missed, runs, 1 - confidence)
    if noise == 0:  # and it is no looser than it must be
        assert not within(runs - missed, runs, confidence - 0.16)  # 5 standard deviations away, 1e-6


def test_a_systematic_shift_does_not_break_the_bound(first_seed):
    rng = np.random.default_rng(first_seed + 5)
    residuals = rng.standard_normal((1000, 3)) + np.array([2.0, -1.0, 0.5])
    assert within(sum(error_norm_bound(row, 0.9) < 1 for row in residuals), 1000, 0.1)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_floor_lies_below_the_norm_as_often_as_it_says(k, first_seed):
    rng = np.random.default_rng(first_seed + k)
    missed = sum(error_norm_floor(row, 0.9) > 1 for row in rng.standard_normal((1000, k)))
    assert within(missed, 1000, 0.1)
    assert not within(1000 - missed, 1000, 0.8)


def test_the_bound_of_one_direction_is_the_normal_quantile():
    q = stats.norm.ppf(0.5 + 0.5 * 1e-4)  # |e.v| below q ||e|| with probability 1e-4
    assert error_norm_bound(np.array([2.0]), 1 - 1e-4) == pytest.approx(2 / q, rel=1e-6)


def test_nothing_measured_bounds_nothing():
    empty = np.zeros(0)
    assert error_norm_bound(empty, 0.9) == math.inf
    assert error_norm_floor(empty, 0.9) == 0
    assert math.isnan(error_norm(empty))
    assert detectable_norm(empty, 0.9) == math.inf


def test_the_squared_estimate_is_unbiased():
    residuals = 2.0 * np.random.default_rng(0).standard_normal((5000, 3))
    mean = np.mean([error_norm(row) ** 2 for row in residuals])
    assert mean == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("thresholds", [[1.0], [1.0, 1.0, 1.0], [0.1, 1.0, 10.0], [3.0, math.inf]])
@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.99])
def test_an_error_of_the_detectable_norm_is_missed_as_rarely_as_it_says(thresholds, confidence):
    limits = np.array(thresholds)
    norm = detectable_norm(limits, confidence)
    rng = np.random.default_rng(1)
    missed = int(np.all(np.abs(norm * rng.standard_normal((8000, len(limits)))) <= limits, axis=1).sum())
    assert within(missed, 8000, 1 - confidence)
    assert not within(8000 - missed, 8000, confidence - 0.06)


def test_thresholds_of_zero_see_everything_and_of_infinity_nothing():
    assert detectable_norm(np.zeros(3), 0.99) == 0
    assert detectable_norm(np.full(2, math.inf), 0.99) == math.inf


@pytest.mark.parametrize(
    "population, sampled, failures", [(10, 3, 0), (10, 10, 4), (47, 20, 0), (47, 20, 3), (200, 50, 50), (200, 60, 1)]
)
@pytest.mark.parametrize("confidence", [0.5, 0.9999])
def test_the_count_bound_is_the_exact_one(population, sampled, failures, confidence):
    bound = wrong_count_bound(population, sampled, failures, confidence)
    miss = Fraction(1 - confidence)
    possible = [
        wrong
        for wrong in range(failures, population - (sampled - failures) + 1)
        if chance_of_at_most(failures, population, wrong, sampled) > miss
    ]
    assert bound == max(possible, default=failures)


def test_the_count_bound_of_everything_measured_is_what_was_found():
    assert wrong_count_bound(1000, 1000, 7, 0.9999) == 7
    assert wrong_count_bound(1000, 0, 0, 0.9999) == 1000


def test_large_populations_are_bounded_too():
    bound = wrong_count_bound(10**9, 9206, 0, 0.9999)
    assert bound / 10**9 == pytest.approx(1 - 1e-4 ** (1 / 9206), rel=1e-2)


@pytest.mark.parametrize("population, share, miss", [(47, 0.1, 1e-4), (1000, 0.01, 1e-2), (300, 1e-3, 0.5)])
def test_the_sample_is_the_smallest_that_keeps_the_promise(population, share, miss):
    wrong = max(1, math.ceil(share * population))
    n = sample_size(population, share, miss)
    assert chance_of_at_most(0, population, wrong, n) <= miss if n <= population - wrong else True
    if n > 1:
        assert chance_of_at_most(0, population, wrong, n - 1) > miss


def test_a_planted_share_is_missed_as_rarely_as_promised():
    rng = np.random.default_rng(3)
    population, share, miss = 2000, 0.01, 0.05
    n = sample_size(population, share, miss)
    missed = sum(not np.any(rng.choice(population, n, replace=False) < share * population) for _ in range(2000))
    assert within(missed, 2000, miss)


def test_bonferroni():
    assert 1 - split(0.9999, 20) == pytest.approx(1e-4 / 20)
    assert split(0.99, 0) == 0.99
