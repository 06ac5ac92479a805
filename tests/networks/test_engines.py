"""Each engine against the other and against central differences in 60 digits."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck.estimates import Status
from fastcheck.measure.noise import Noise
from fastcheck.networks import Dense, Network
from fastcheck.networks.operators import Change
from fastcheck.networks.windows import mark_duplicates
from fastcheck.parameters import Parameters

from . import naive
from .nets import Case, dense, smooth_cases

CASES = list(smooth_cases())


def measured(case: Case, **options):
    layout = Parameters.of(case.params)
    found = case.net.bind(case.x, case.y).measure(layout.flatten(case.params), layout, **options)
    return layout, found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_equals_the_naive_twin(case):
    expected = naive.loss(case.net, {n: naive.exact(v) for n, v in case.params.items()}, _data(case), case.y)
    assert case.net.bind(case.x, case.y)(case.params) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_noise_that_a_network_tells_covers_the_rounding_of_its_loss(case, size):
    """Against 60 digits, at points beside each other."""
    layout, bound = Parameters.of(case.params), case.net.bind(case.x, case.y)
    theta = size * layout.flatten(case.params)
    noise = Noise.of_rounding(bound.measure(theta, layout).noise, bound.value(theta, layout))
    rng = np.random.default_rng(0)
    for _ in range(3):
        beside = layout.unflatten(theta * (1 + 1e-13 * rng.standard_normal(len(theta))))
        exact = naive.loss(case.net, {n: naive.exact(v) for n, v in beside.items()}, _data(case), case.y)
        assert float(abs(exact - bound(beside))) < 2 * noise.level
    assert noise.relative < 2e3 * np.finfo(np.float64).eps


def _data(case):
    return case.x if case.x.dtype.kind == "i" else naive.exact(case.x)


@cache
def _truth(which):
    case = CASES[which]
    return Parameters.of(case.params).flatten(naive.gradient(case.net, case.params, case.x, case.y))


@pytest.mark.parametrize("engine", ["unit", "coordinate"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_sixty_digits(case, engine):
    layout, found = measured(case, engine=engine)
    truth = _truth(CASES.index(case))
    assert np.linalg.norm(found.value - truth) <= 1e-14 * np.linalg.norm(truth)
    for block in layout.blocks:
        part = block.slice
        allowed = 1e-12 * np.linalg.norm(truth[part]) + 1e-14 * np.linalg.norm(truth)
        assert np.linalg.norm(found.value[part] - truth[part]) <= allowed
    assert (np.abs(found.value - truth) <= found.uncertainty + 1e-18).all()
    assert (found.status == Status.SMOOTH).all()
    assert np.isnan(found.left).all()
    # The uncertainty is of use: far below what a grade asks for.
    assert np.linalg.norm(found.uncertainty) <= 1e-11 * np.linalg.norm(truth)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_small_changes_are_half_the_difference_of_the_exact_ones_to_both_sides(case):
    layout, bound, rng = Parameters.of(case.params), case.net.bind(case.x, case.y), np.random.default_rng(0)
    forward = case.net.forward(layout.flatten(case.params), layout, bound.x, bound.y)
    mark_duplicates(forward.operators, bound.x)
    samples = bound.x.shape[-1]

    def compare(function, inputs, small):
        """Compare changes that pass no kink; those that do (of zeros of relu under a pool, say) are to be marked."""
        d, (bits, far) = 2.0**-30 * rng.normal(size=(*inputs, 8, samples)), np.zeros((2, 8, samples), np.uint8)
        half = (function.exact(d, bits) - function.exact(-d, bits)) / 2
        found = small(d.copy(), far)
        assert far[bits > 0].all()
        assert np.mean(far == 0) > 0.2
        assert np.linalg.norm((found - half)[..., far == 0]) <= 1e-13 * np.linalg.norm(half)

    for operator in forward.operators[1:]:

        def carried(d, far, operator=operator):
            return operator.fast(Change(d[..., None, :]), far).everywhere(operator.out.shape[:-1])

        compare(operator, operator.inputs, carried)
    compare(forward.loss, (forward.operators[-1].out[..., 0].size,), forward.loss.fast)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    activation=st.sampled_from(("relu", "tanh", "gelu", "leaky_relu", "elu", "silu", "softplus", "sigmoid")),
    size=st.sampled_from((0.1, 1.0, 30.0)),
    samples=st.integers(1, 6),
)
def test_the_engines_agree_on_random_nets(seed, widths, activation, size, samples):
    rng = np.random.default_rng(seed)
    params = {f"W{i}": rng.normal(size=(o, n)) * size for i, (n, o) in enumerate(pairwise(widths))}
    net = Network([Dense(name, None, activation) for name in params], "squared_error", l2=0.1)
    case = Case("", net, params, rng.normal(size=(widths[0], samples)), rng.normal(size=(widths[-1], samples)))
    _, unit = measured(case)
    _, coordinate = measured(case, engine="coordinate")
    assert np.array_equal(unit.status, coordinate.status)
    assert (np.abs(unit.value - coordinate.value) <= unit.uncertainty + coordinate.uncertainty).all()
    total = np.linalg.norm(coordinate.value)
    assert np.linalg.norm(unit.value - coordinate.value) <= 1e-12 * total


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_the_step_of_the_reference_engine_is_the_users(step):
    """The coordinate engine differences with any finite step: its error is the h^2 of a central difference."""
    case = dense("", "tanh")
    _, found = measured(case, engine="coordinate", step=step)
    truth = _truth([str(c) for c in CASES].index("dense tanh"))
    error = np.linalg.norm(found.value - truth) / np.linalg.norm(truth)
    assert 1e-3 * step**2 < error < 10 * step**2


def test_differences_that_grow_beyond_their_reach_are_measured_with_a_smaller_step():
    case = dense("", "tanh")
    params = {
        name: value * (1e6 if name == "W3" else 1e-3 if name == "W2" else 1.0) for name, value in case.params.items()
    }
    params["W1"] = params["W1"] * 1e-6
    case = Case("", case.net, params, case.x * 1e6, case.y)
    layout, found = measured(case, step=1e-3)
    truth = layout.flatten(naive.gradient(case.net, case.params, case.x, case.y, naive.STEP**2))
    assert (found.status == Status.SMOOTH).all()
    np.testing.assert_allclose(found.value, truth, rtol=1e-9, atol=1e-12 * np.linalg.norm(truth))


@pytest.mark.parametrize(
    "which", ["dense tanh", "dense relu", "deep conv", "conv, max pool", "layer norm", "batch norm"]
)
def test_planted_errors_are_found_at_their_exact_coordinates(which):
    """A right gradient is within the uncertainty everywhere; five coordinates wrong by 1e-9 are the five outside it."""
    case = next(case for case in CASES if str(case) == which)
    _, found = measured(case)
    gradient = _truth(CASES.index(case)).copy()
    planted = np.sort(np.random.default_rng(5).choice(np.flatnonzero(np.abs(gradient) > 1e-4), 5, replace=False))
    gradient[planted] *= 1.0 + 1e-9
    wrong = np.flatnonzero(np.abs(gradient - found.value) > found.uncertainty)
    assert wrong.tolist() == planted.tolist()
