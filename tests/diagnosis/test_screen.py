"""A screen is diagnosed from its own directions."""

import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.bugs import MUTATIONS
from fastcheck.diagnosis import Directions
from fastcheck.measure.directions import gaussian

BY_KIND = {mutation.kind: mutation for mutation in MUTATIONS}
EXPECTED = {
    "factor_m": "factor",
    "sign": "sign",
    "zero": "zero",
    "transpose": "transpose",
    "swapped": "swapped",
    "l2_missing": "l2",
    "l2_averaged": "l2",
    "sum_over_batch": "sum_over_batch",
    "accumulated": "accumulated",
}


def screened(kind, activation):
    net = examples.mlp((32, 40, 40, 10), l2=1e-2, activation=activation)
    mutated = BY_KIND[kind].apply(net, np.random.default_rng(1))
    report = fastcheck.check(net.loss, mutated.problem.gradient, net.params, args=net.args, mode="screen")
    return mutated, report


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_kinds(kind, activation):
    mutated, report = screened(kind, activation)
    assert report.coverage < 0.1
    first = report.findings[0]
    assert first.kind == EXPECTED[kind]
    assert set(first.evidence["blocks"]) == set(mutated.blocks)
    assert not [f for f in report.findings[1:] if f.kind in ("unknown", "not_located")]


def test_what_has_no_kind_is_located_in_the_order_of_backprop():
    mutated, report = screened("missing_activation_derivative", "tanh")
    assert mutated.blocks == ("W1", "b1", "W2", "b2")
    first = report.findings[0]
    assert (first.kind, first.evidence["culprit"]) == ("first_wrong_layer", "b2")
    assert "step from layer 3 back to layer 2" in first.message


def test_a_located_coordinate_needs_no_diagnosis():
    _, report = screened("coordinate_sign", "tanh")
    assert [f.kind for f in report.findings] == ["coordinate"]


@pytest.mark.parametrize("seed", range(5))
def test_random_errors_get_no_kind(seed):
    net = examples.mlp((32, 40, 40, 10), l2=1e-2)
    rng = np.random.default_rng(seed)
    wrong = {name: g * (1 + 0.3 * rng.standard_normal(g.shape)) for name, g in net.claimed().items()}
    report = fastcheck.check(net.loss, wrong, net.params, args=net.args, mode="screen")
    assert [f.kind for f in report.findings if "blocks" in f.evidence] == ["first_wrong_layer"]


def test_directions_are_drawn_again():
    vector = np.random.default_rng(0).standard_normal(150_000)
    rows = Directions(3, 2, (0, 5)).of(vector)
    expected = [gaussian(3, 2, probe, 0, len(vector)) @ vector for probe in (0, 5)]
    np.testing.assert_allclose(rows, expected, rtol=1e-10)
