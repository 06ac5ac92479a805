"""The statistics behind every bound in a report: pure functions, each with the source of its formula.

Directions. Let e be the error of a gradient and v_1 ... v_k independent Gaussian directions. The residuals
r_i = e.v_i are independent N(0, ||e||^2), so sum(r_i^2) / ||e||^2 is chi-square with k degrees of freedom, whatever e
is. A measured residual carries an error n_i of its own. By Anderson's inequality (T. W. Anderson, "The integral of a
symmetric unimodal function over a symmetric convex set and some probability inequalities", Proc. AMS 6 (1955) 170-176)
an independent shift n never makes (r + n) more likely to lie in a ball about zero than r alone: every upper bound below
holds with any such measurement error, and needs no estimate of it.

Samples. Of N coordinates M are wrong; n are drawn without replacement, and X of them are found wrong: hypergeometric.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special  # and not scipy.stats, which takes longer to load than most checks to run

from fastcheck.arrays import FloatArray, IntArray

__all__ = [
    "chi_square_above",
    "chi_square_below",
    "detectable_norm",
    "error_norm",
    "error_norm_bound",
    "error_norm_floor",
    "normal_above",
    "sample_size",
    "split",
    "wrong_count_bound",
]


def normal_above(chance: float) -> float:
    """Return the value that a standard normal variable exceeds with this probability."""
    return -float(special.ndtri(chance))


def chi_square_above(chance: float, freedom: int) -> float:
    """Return the value that a chi-square variable of so many degrees of freedom exceeds with this probability."""
    return float(special.chdtri(freedom, chance))


def chi_square_below(chance: float, freedom: int) -> float:
    """Return the value that a chi-square variable of so many degrees of freedom stays below with this probability."""
    return 2 * float(special.gammaincinv(freedom / 2, chance))


def split(confidence: float, parts: int) -> float:
    """Return the confidence of each of several statements that are then all true at `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, parts)


def error_norm(residuals: FloatArray) -> float:
    """Return the estimate of ||e|| from residuals, the root of their mean square; its square is unbiased."""
    return math.sqrt(float(np.mean(residuals**2))) if len(residuals) else math.nan


def error_norm_bound(residuals: FloatArray, confidence: float) -> float:
    """Return an upper bound on ||e||: sqrt(sum(r^2) / q), q the chi-square quantile of 1 - confidence; inf for k = 0.

    The residuals, shape (k,), are e.v for Gaussian v of unit variance, each with any independent measurement error; q
    is of k degrees of freedom.
    """
    if not len(residuals):
        return math.inf
    quantile = chi_square_below(1 - confidence, len(residuals))
    return math.sqrt(float(residuals @ residuals) / quantile)


def error_norm_floor(residuals: FloatArray, confidence: float) -> float:
    """Return a lower bound on ||e||, from residuals that are already less their measurement error; see the bound."""
    if not len(residuals):
        return 0.0
    quantile = chi_square_above(1 - confidence, len(residuals))
    return math.sqrt(float(residuals @ residuals) / quantile)


def detectable_norm(thresholds: FloatArray, confidence: float) -> float:
    """Return the smallest ||e|| that shows above its threshold in at least one of k directions, with this probability.

    It is the root s of prod(2 Phi(t_i / s) - 1) = 1 - confidence; inf for k = 0. A measurement error independent of v
    only lowers the probability of a miss (Anderson).
    """
    finite = [t for t in thresholds.tolist() if math.isfinite(t)]
    if not finite:
        return math.inf
    if not min(finite) > 0:  # such a direction shows any error
        return 0.0

    def of_alike(threshold: float) -> float:
        """Return the root where every threshold is this one."""
        return threshold / -float(special.ndtri(0.5 * -math.expm1(math.log1p(-confidence) / len(finite))))

    def excess(norm: float) -> float:
        chances = (math.erf(t / (norm * math.sqrt(2))) for t in finite)
        return sum(math.log(max(chance, 1e-300)) for chance in chances) - math.log1p(-confidence)

    low, high = math.log(of_alike(min(finite))), math.log(of_alike(max(finite)))
    while high - low > 1e-6:  # excess falls; scipy.optimize would take longer to load than most screens to run
        middle = (low + high) / 2
        low, high = (middle, high) if excess(math.exp(middle)) > 0 else (low, middle)
    return math.exp(high)


def wrong_count_bound(population: int, sampled: int, failures: int, confidence: float) -> int:
    """Return the largest number of wrong coordinates that a sample without replacement leaves possible.

    Of N coordinates n were drawn and measured, x of those wrong. The bound is the exact one, the largest M with P(X <=
    x | N, M, n) > 1 - confidence (T. Wright, "Exact Confidence Bounds when Sampling from Small Finite Universes",
    Springer 1991, chapter 2).
    """
    low, high = failures, population - (sampled - failures)  # so many are known wrong; so many known right
    while low < high:
        middle = (low + high + 1) // 2
        if _chance_of_at_most(failures, population, middle, sampled) > 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def sample_size(population: int, share: float, miss: float) -> int:
    """Return the smallest sample that misses `share` wrong coordinates altogether with probability at most `miss`.

    At least ``ceil(share * N)`` of N are wrong, one at least; the sample is drawn without replacement.
    """
    wrong = max(1, math.ceil(share * population))
    low, high = 1, population - wrong + 1  # with that many drawn, one is surely wrong
    while low < high:
        middle = (low + high) // 2
        if _chance_of_at_most(0, population, wrong, middle) <= miss:
            high = middle
        else:
            low = middle + 1
    return low


def _chance_of_at_most(failures: int, population: int, wrong: int, sampled: int) -> float:
    """Return P(X <= x) for X wrong among those sampled: the hypergeometric distribution, summed in logarithms.

    The coefficients C(a, b) = 1 / ((a + 1) B(b + 1, a - b + 1)) are taken by log-beta, which keeps its digits where the
    log-factorials of a large population would cancel.
    """
    right = population - wrong
    x = np.arange(max(0, sampled - right), min(failures, wrong, sampled) + 1)
    logs = _log_choose(wrong, x) + _log_choose(right, sampled - x) - _log_choose(population, sampled)
    return min(1.0, float(np.exp(logs).sum()))


def _log_choose(among: int, chosen: IntArray | int) -> FloatArray:
    return np.asarray(-np.log(among + 1.0) - special.betaln(chosen + 1.0, among - chosen + 1.0))
