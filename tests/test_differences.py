from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck.estimates import SCHEMES, Estimate, Estimates, Measured, Status
from fastcheck.parameters import Parameters


def exact(scheme, power):
    """Return sum of c_k o_k^power in exact fractions; thirds and twelfths are recognised for what they are."""
    weights = [Fraction(c).limit_denominator(1000) for c in scheme.coefficients]
    return sum(c * Fraction(o) ** power for c, o in zip(weights, scheme.offsets, strict=True))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_order_conditions_hold_exactly(scheme):
    # Taylor: the derivative of x^p at 0 is 1 for p = 1 and 0 for the others, up to the order.
    assert [exact(scheme, p) for p in range(scheme.order + 1)] == [int(p == 1) for p in range(scheme.order + 1)]
    assert exact(scheme, scheme.order + 1) != 0


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_truncation_falls_with_the_order(scheme):
    x, errors = np.longdouble(0.7), []
    for h in (0.1, 0.05):
        values = np.array([[float(np.exp(x + o * h)) for o in scheme.offsets]])
        errors.append(abs(float(scheme.derivative(values, np.array([h]))[0] - np.exp(x))))
    assert errors[0] / errors[1] == pytest.approx(2**scheme.order, rel=0.1)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=8), h=st.floats(1e-6, 10))
def test_twin_in_long_double(scheme, values, h):
    k = len(scheme.offsets)
    table = np.array(values[: 8 // k * k]).reshape(-1, k)
    twin = (table.astype(np.longdouble) @ np.array(scheme.coefficients, np.longdouble)) / np.longdouble(h)
    found = scheme.derivative(table, np.full(len(table), h))
    np.testing.assert_allclose(
        found, twin.astype(float), rtol=1e-13, atol=1e-15 * np.abs(table).max(initial=1e-300) / h
    )


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_a_constant_has_no_slope_however_large(scheme):
    table = np.full((3, len(scheme.offsets)), 1e300)
    assert scheme.derivative(table, np.full(3, 1e-7)).tolist() == [0, 0, 0]


def test_amplification_bounds_the_error():
    rng = np.random.default_rng(0)
    for scheme in SCHEMES.values():
        values = rng.uniform(-1, 1, (1000, len(scheme.offsets)))
        worst = np.abs(scheme.derivative(values, np.ones(1000))).max()
        assert 0.8 * scheme.amplification < worst <= scheme.amplification


def test_interval():
    smooth = Estimate(2.0, 0.1, 0.2, 1.9, 2.1, Status.SMOOTH)
    assert smooth.interval == (2.0, 2.0)
    assert smooth.uncertainty == pytest.approx(0.3)
    assert Estimate(0.0, 0.1, 0.0, 1.0, -1.0, Status.KINK).interval == (-1.0, 1.0)


@pytest.mark.parametrize("chosen", [None, np.array([5, 7, 9])])
def test_rows_and_places(chosen):
    block = Parameters.of({"a": np.zeros(5), "b": np.zeros(6)})["b"]
    theta = np.full(11, np.nan)
    found = Estimates.empty(block, chosen, theta)
    places = list(range(5, 11)) if chosen is None else chosen.tolist()
    assert found.places(slice(None)).tolist() == places
    assert [found.row(place) for place in places] == list(range(len(found)))
    assert np.isnan(found.value).all()
    found.put(7, Estimate(3.0, 0.25, 0.5, 1.0, 2.0, Status.CROSSED))
    row = found.row(7)
    assert (found.value[row], found.rounding[row], found.truncation[row]) == (3.0, 0.25, 0.5)
    assert found.looks[7].status is Status.CROSSED
    assert (theta[7] == 3.0) is np.bool_(chosen is None)  # a whole block's values live in the vector like theta


def test_dense_measurements_come_apart_by_block():
    layout = Parameters.of({"a": np.zeros(2), "b": np.zeros(3)})
    measured = Measured.smooth(np.arange(5), np.arange(5.0), np.full(5, 0.5), np.full(5, 0.25))
    measured.status[3] = Status.KINK
    a, b = (Estimates.of_measured(block, measured) for block in layout.blocks)
    assert (a.value.tolist(), b.value.tolist()) == ([0, 1], [2, 3, 4])
    assert a.looks == {}
    assert b.looks[3].status is Status.KINK
    assert measured.uncertainty.tolist() == [0.75] * 5
    assert len(measured) == 5
