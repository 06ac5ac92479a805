"""The uncertainty is an upper bound almost always, and not a useless one.

Over functions with known derivatives |error| <= uncertainty in at least 99.9% of the cases; the median uncertainty is
within 100 times the median error.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from fastcheck.context import prepared
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from fastcheck.settings import Settings
from fastcheck.strategies import full
from tests.quality.functions import families


def measured(loss, gradient, theta, seed):
    """Return the measured derivatives and their uncertainties."""
    layout = Parameters.of(theta)
    settings = Settings("full", seed=seed)
    context = prepared(loss, gradient, (), settings, Run(), layout, layout.flatten(theta))
    (found,) = full.measure(context, [None]).estimates
    return found.value, found.rounding.astype(float) + found.truncation


def errors_and_uncertainties(seeds):
    pairs = []
    for seed in seeds:
        for _, loss, gradient, theta in families(np.random.default_rng(seed)):
            with np.errstate(all="ignore"):
                value, uncertainty = measured(loss, gradient, theta, seed)
            own = 4 * np.finfo(float).eps * np.abs(gradient)  # of the known derivative itself
            pairs.append(np.stack([np.abs(value - gradient), uncertainty + own]))
    return np.concatenate(pairs, axis=1)


def holds_and_is_tight(error, uncertainty):
    assert np.mean(error <= uncertainty) >= 0.999
    nonzero = error > 0
    assert np.median(uncertainty[nonzero]) <= 100 * np.median(error[nonzero])


def test_uncertainty_holds_and_is_tight():
    holds_and_is_tight(*errors_and_uncertainties(range(12)))


@pytest.mark.slow
def test_uncertainty_holds_and_is_tight_over_150_draws():
    error, uncertainty = errors_and_uncertainties(range(150))
    assert error.size > 10_000
    holds_and_is_tight(error, uncertainty)


@pytest.mark.explore
def test_uncertainty_holds_and_is_tight_over_fresh_draws(fresh):
    holds_and_is_tight(*errors_and_uncertainties(fresh(40)))


@pytest.mark.parametrize("theta", [0.1, 1.0, 1e3, 1e-7, 12345.678])
def test_a_difference_quotient_against_forty_digits(theta):
    value, uncertainty = measured(lambda t: math.sin(t[0]), np.cos([theta]), np.array([theta]), 0)
    with mpmath.workdps(40):
        h = mpmath.mpf(10) ** -12
        exact = (mpmath.sin(mpmath.mpf(theta) + h) - mpmath.sin(mpmath.mpf(theta) - h)) / (2 * h)
    assert abs(value[0] - float(exact)) <= uncertainty[0]
